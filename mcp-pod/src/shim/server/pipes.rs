//! The tasks that read and write the server's three pipes.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::super::metrics::{Dropped, Metrics};
use super::frame::Framer;
use super::rpc::{Outgoing, RpcClient};

/// How long a write may wait for the server to read its standard input.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
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
    /// The server does not read its standard input.
    #[error("it has not read its standard input for {} s", WRITE_TIMEOUT.as_secs())]
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
pub(super) async fn write(
    client: Arc<RpcClient>,
    mut stdin: ChildStdin,
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
            written = write_all(&mut stdin, &buffer) => written,
        };
        if let Err(end) = written {
            return end;
        }
        buffer.clear();
        // Free the memory of a large request.
        buffer.shrink_to(BATCH);
    }
}

async fn write_all(stdin: &mut ChildStdin, mut bytes: &[u8]) -> Result<(), PipeEnd> {
    while !bytes.is_empty() {
        match timeout(WRITE_TIMEOUT, stdin.write(bytes)).await {
            Ok(Ok(written)) if written > 0 => bytes = bytes.get(written..).unwrap_or_default(),
            Ok(_) => return Err(PipeEnd::Closed),
            Err(_) => return Err(PipeEnd::Unread),
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

/// Copies the server's standard error to the log. The rate and the length of the lines are limited.
pub(super) async fn log(mut stderr: ChildStderr, metrics: Arc<Metrics>) {
    let mut chunk = BytesMut::with_capacity(4096);
    let mut line = Vec::new();
    let mut limiter = LineLimiter::new();
    loop {
        chunk.clear();
        if !stderr.read_buf(&mut chunk).await.is_ok_and(|length| length > 0) {
            break;
        }
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = STDERR_BYTES.saturating_sub(line.len());
            let (text, ends) =
                piece.split_last().filter(|(last, _)| **last == b'\n').map_or((piece, false), |(_, text)| (text, true));
            line.extend_from_slice(text.get(..room).unwrap_or(text));
            if ends {
                log_line(&line, &mut limiter, &metrics);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        log_line(&line, &mut limiter, &metrics);
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

fn log_line(line: &[u8], limiter: &mut LineLimiter, metrics: &Metrics) {
    if limiter.allows_line() {
        // As a field, the text stays inside quotes, so that a server cannot forge log lines.
        info!(target: "server", stderr = &*String::from_utf8_lossy(line));
    } else {
        metrics.dropped(Dropped::Stderr);
    }
}
