//! The tasks that read and write the server's pipes.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::super::metrics::{Dropped, Metrics};
use super::frame::Framer;
use super::rpc::{Outgoing, RpcClient};

/// How long the server may leave its standard input unread after the last call that it may have seen has ended, by an
/// answer or by the call's own timeout. Before that, a server with one thread is busy with the call.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a write that waits checks whether calls are in flight.
const UNREAD_CHECK: Duration = Duration::from_secs(1);
/// Lines within [`GARBAGE_WINDOW`] that may be something other than JSON-RPC: a stray `print` is fine, a flood is not.
const MAX_GARBAGE_LINES: u32 = 1000;
const GARBAGE_WINDOW: Duration = Duration::from_secs(10);
/// A line of more bytes than this is taken for one without an end.
const MAX_DISCARDED: u64 = 1 << 30;
/// Lines of the server's standard error that are logged per second.
const STDERR_LINES: u32 = 100;
/// Bytes of such a line that are logged.
const STDERR_BYTES: usize = 2048;

/// Why a pipe task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PipeEnd {
    /// The client was closed.
    #[error("it was stopped")]
    Stopped,
    /// The server closed its end of the pipe.
    #[error("it closed its standard input or output")]
    Closed,
    /// The server does not read its standard input, although it has no call to work on.
    #[error("it has not read its standard input for {} s while it had no call to answer", UNREAD_TIMEOUT.as_secs())]
    Unread,
    /// The server writes too many lines that are not JSON-RPC.
    #[error("it wrote more than {MAX_GARBAGE_LINES} lines that are not JSON-RPC within {} s", GARBAGE_WINDOW.as_secs())]
    Garbage,
    /// The server writes a line that does not end.
    #[error("it wrote a line without an end")]
    Endless,
}

/// Writes the queued lines to the server, several small ones at a time. A request counts as forwarded once it is in the
/// buffer; before that, the server cannot have seen it.
///
/// While the server does not read, lines wait in the queue, which is bounded, and calls end with their own timeouts.
pub(super) async fn write(
    client: Arc<RpcClient>,
    mut stdin: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Outgoing>,
) -> PipeEnd {
    const BATCH: usize = 64 << 10;
    let mut buffer = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            () = client.closed() => return PipeEnd::Stopped,
            first = queue.recv() => first,
        };
        let mut next = first;
        while let Some(outgoing) = next.take() {
            if client.start_writing(&outgoing) {
                buffer.extend_from_slice(&outgoing.line);
            }
            if buffer.len() < BATCH {
                next = queue.try_recv().ok();
            }
        }
        if buffer.is_empty() && queue.is_closed() {
            return PipeEnd::Stopped;
        }
        let written = tokio::select! {
            () = client.closed() => return PipeEnd::Stopped,
            written = write_all(&client, &mut stdin, &buffer) => written,
        };
        if let Err(end) = written {
            return end;
        }
        buffer.clear();
        // Free the memory of a large request.
        buffer.shrink_to(BATCH);
    }
}

async fn write_all(client: &RpcClient, stdin: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), PipeEnd> {
    let mut last_busy = Instant::now();
    while !bytes.is_empty() {
        match timeout(UNREAD_CHECK, stdin.write(bytes)).await {
            Ok(Ok(written)) if written > 0 => {
                bytes = bytes.get(written..).unwrap_or_default();
                last_busy = Instant::now();
            }
            Ok(_) => return Err(PipeEnd::Closed),
            Err(_) if client.has_forwarded() => last_busy = Instant::now(),
            Err(_) if last_busy.elapsed() >= UNREAD_TIMEOUT => return Err(PipeEnd::Unread),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Reads the server's standard output and dispatches its lines.
pub(super) async fn read(client: Arc<RpcClient>, mut stdout: ChildStdout) -> PipeEnd {
    let mut framer = Framer::default();
    let mut window = Instant::now();
    let mut garbage_lines = 0;
    loop {
        let read = tokio::select! {
            biased;
            () = client.closed() => return PipeEnd::Stopped,
            read = stdout.read_buf(framer.space()) => read,
        };
        if !read.is_ok_and(|length| length > 0) {
            return PipeEnd::Closed;
        }
        while let Some(frame) = framer.next(client.max_line()) {
            if client.dispatch(frame).is_ok() {
                continue;
            }
            if window.elapsed() > GARBAGE_WINDOW {
                window = Instant::now();
                garbage_lines = 0;
            }
            garbage_lines += 1;
            if garbage_lines > MAX_GARBAGE_LINES {
                return PipeEnd::Garbage;
            }
        }
        if framer.discarded() > MAX_DISCARDED {
            return PipeEnd::Endless;
        }
    }
}

/// Text of a server that is not a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    Stderr,
    /// Only of a server that serves HTTP.
    Stdout,
}

/// Copies text of the server to the log. The rate and the length of the lines are limited.
pub(super) async fn log(text: Text, mut output: impl AsyncRead + Unpin, metrics: Arc<Metrics>) {
    let mut chunk = BytesMut::with_capacity(4096);
    let mut line = Vec::new();
    let mut limiter = LineLimiter::new();
    loop {
        chunk.clear();
        if !output.read_buf(&mut chunk).await.is_ok_and(|length| length > 0) {
            break;
        }
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = STDERR_BYTES.saturating_sub(line.len());
            let (part, ends) =
                piece.split_last().filter(|(last, _)| **last == b'\n').map_or((piece, false), |(_, text)| (text, true));
            line.extend_from_slice(part.get(..room).unwrap_or(part));
            if ends {
                log_line(text, &line, &mut limiter, &metrics);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        log_line(text, &line, &mut limiter, &metrics);
    }
}

/// Limits the lines logged per second.
struct LineLimiter {
    window_start: Instant,
    lines_left: u32,
}

impl LineLimiter {
    fn new() -> Self {
        Self { window_start: Instant::now(), lines_left: STDERR_LINES }
    }

    fn allows_line(&mut self) -> bool {
        if self.window_start.elapsed() > Duration::from_secs(1) {
            *self = Self::new();
        }
        let allowed = self.lines_left > 0;
        self.lines_left = self.lines_left.saturating_sub(1);
        allowed
    }
}

fn log_line(text: Text, line: &[u8], limiter: &mut LineLimiter, metrics: &Metrics) {
    if limiter.allows_line() {
        // As a field, the text stays inside quotes, so that a server cannot forge log lines.
        let line = &*String::from_utf8_lossy(line);
        match text {
            Text::Stderr => info!(target: "server", stderr = line),
            Text::Stdout => info!(target: "server", stdout = line),
        }
    } else {
        metrics.dropped(Dropped::Stderr);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncBufReadExt as _, BufReader, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    use super::super::rpc::{Params, Request, RequestHandle};
    use super::*;

    const PIPE: usize = 64 << 10;

    /// A client whose lines are written to a pipe that nobody reads yet.
    fn unread() -> (Arc<RpcClient>, JoinHandle<PipeEnd>, tokio::io::DuplexStream) {
        let (client, lines) = RpcClient::new(Arc::new(Metrics::new().unwrap()));
        let (stdin, server) = duplex(PIPE);
        (Arc::clone(&client), tokio::spawn(write(client, stdin, lines)), server)
    }

    fn request(client: &Arc<RpcClient>, bytes: usize) -> RequestHandle {
        let params = vec![b' '; bytes];
        client.request(&Request { method: "tools/call", params: Params::Plain(&params), max_response: 100 }).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_busy_with_a_call_may_leave_its_input_unread() {
        let (client, writer, server) = unread();
        let busy = request(&client, 10);
        sleep(Duration::from_millis(10)).await;
        let waiting = [request(&client, PIPE), request(&client, PIPE), request(&client, 10)];
        sleep(UNREAD_TIMEOUT * 10).await;
        assert!(!writer.is_finished(), "it was given up");
        assert!(waiting[0].forwarded() && !waiting[2].forwarded(), "the last call waits in the queue");

        let mut lines = BufReader::new(server).lines();
        for id in 1..=4 {
            let line = lines.next_line().await.unwrap().unwrap();
            assert!(line.starts_with(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},")), "{id}");
        }
        drop((busy, waiting));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_reads_nothing_is_given_up_once_its_calls_have_timed_out() {
        let (client, writer, _server) = unread();
        let calls = [request(&client, PIPE), request(&client, PIPE), request(&client, 10)];
        sleep(Duration::from_secs(600)).await;
        let start = Instant::now();
        drop(calls);
        assert_eq!(writer.await.unwrap(), PipeEnd::Unread);
        // The last check with a call in flight was up to one interval before.
        let waited = start.elapsed() + UNREAD_CHECK;
        assert!((UNREAD_TIMEOUT..UNREAD_TIMEOUT + UNREAD_CHECK * 3).contains(&waited), "{waited:?}");
    }
}
