//! The tasks at the server's three pipes.

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
use super::link::{Link, Outgoing};

/// How long the server may leave its input unread while something waits there.
const UNREAD: Duration = Duration::from_secs(120);
/// Garbage lines within [`GARBAGE_WINDOW`] that a server may write: a stray `print` is forgiven, a flood is not.
const GARBAGE: u32 = 1000;
const GARBAGE_WINDOW: Duration = Duration::from_secs(10);
/// A line that is still going on after this many bytes never ends.
const ENDLESS: u64 = 1 << 30;
/// Lines a second, and bytes a line, of the server's standard error that reach the log.
const STDERR_LINES: u32 = 100;
const STDERR_BYTES: usize = 2048;

/// Why a pipe is no longer served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PipeEnd {
    /// The link was closed by us.
    #[error("it was stopped")]
    Stopped,
    /// The server closed its end.
    #[error("it closed its standard input or output")]
    Closed,
    /// The server does not read.
    #[error("it has not read its standard input for {} s", UNREAD.as_secs())]
    Unread,
    /// The server writes what is not MCP.
    #[error("it wrote more than {GARBAGE} lines that are not JSON-RPC within {} s", GARBAGE_WINDOW.as_secs())]
    Garbage,
    /// The server writes a line that does not end.
    #[error("it wrote a line without an end")]
    Endless,
}

/// Writes what is queued; several small messages at a time where several wait. What is not in the buffer yet has not
/// been forwarded, whatever becomes of the server.
pub(super) async fn write(link: Arc<Link>, mut stdin: ChildStdin, mut queue: mpsc::Receiver<Outgoing>) -> PipeEnd {
    const BATCH: usize = 64 << 10;
    let mut buffer = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            () = link.ended.cancelled() => return PipeEnd::Stopped,
            first = queue.recv() => first,
        };
        let mut next = first;
        while let Some(outgoing) = next.take() {
            if link.about_to_write(&outgoing) {
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
            () = link.ended.cancelled() => return PipeEnd::Stopped,
            written = write_all(&mut stdin, &buffer) => written,
        };
        if let Err(end) = written {
            return end;
        }
        buffer.clear();
        // One large request must not hold its size for ever.
        buffer.shrink_to(BATCH);
    }
}

async fn write_all(stdin: &mut ChildStdin, mut bytes: &[u8]) -> Result<(), PipeEnd> {
    while !bytes.is_empty() {
        match timeout(UNREAD, stdin.write(bytes)).await {
            Ok(Ok(written)) if written > 0 => bytes = bytes.get(written..).unwrap_or_default(),
            Ok(_) => return Err(PipeEnd::Closed),
            Err(_) => return Err(PipeEnd::Unread),
        }
    }
    Ok(())
}

/// Reads answers until there are none.
pub(super) async fn read(link: Arc<Link>, mut stdout: ChildStdout) -> PipeEnd {
    let mut framer = Framer::default();
    let mut window = Instant::now();
    let mut garbage = 0;
    loop {
        let read = tokio::select! {
            biased;
            () = link.ended.cancelled() => return PipeEnd::Stopped,
            read = stdout.read_buf(framer.space()) => read,
        };
        if !read.is_ok_and(|length| length > 0) {
            return PipeEnd::Closed;
        }
        while let Some(frame) = framer.next(link.line_limit()) {
            if link.take(frame) {
                continue;
            }
            if window.elapsed() > GARBAGE_WINDOW {
                window = Instant::now();
                garbage = 0;
            }
            garbage += 1;
            if garbage > GARBAGE {
                return PipeEnd::Garbage;
            }
        }
        if framer.discarded() > ENDLESS {
            return PipeEnd::Endless;
        }
    }
}

/// Copies the server's standard error to our log, a bounded number of bounded lines.
pub(super) async fn log(mut stderr: ChildStderr, metrics: Arc<Metrics>) {
    let mut chunk = BytesMut::with_capacity(4096);
    let mut line = Vec::new();
    let mut allowance = Allowance { since: Instant::now(), left: STDERR_LINES };
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
                emit(&line, &mut allowance, &metrics);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        emit(&line, &mut allowance, &metrics);
    }
}

struct Allowance {
    since: Instant,
    left: u32,
}

fn emit(line: &[u8], allowance: &mut Allowance, metrics: &Metrics) {
    if allowance.since.elapsed() > Duration::from_secs(1) {
        *allowance = Allowance { since: Instant::now(), left: STDERR_LINES };
    }
    if allowance.left == 0 {
        metrics.dropped(Dropped::Stderr);
        return;
    }
    allowance.left -= 1;
    // As a field, so that whatever is in it stays inside quotes and cannot pass for a line of ours.
    info!(target: "server", stderr = &*String::from_utf8_lossy(line));
}
