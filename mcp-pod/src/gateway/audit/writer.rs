//! A bounded queue of lines and the thread that writes them.
//!
//! Lines gather in one buffer, and the thread takes the whole buffer at a time: under load one `write` carries many
//! lines, and a call never waits for a pipe unless the pipe has been full for long.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;
use tracing::error;

use super::{Line, Subject};

/// Lines that may be written or promised at one time.
const PLACES: usize = 4096;
/// How long a call waits for a place before it is denied.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the thread lets lines gather: one `write` for all that come meanwhile.
const GATHER: Duration = Duration::from_millis(1);
/// A buffer of this size is written at once.
const ENOUGH: usize = 64 * 1024;
/// Bytes reserved for a line; a usual one is shorter.
const LINE_CAPACITY: usize = 768;

/// No line can be promised: the sink is blocked, or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to get a place in the audit queue")]
pub(crate) struct Blocked;

/// The way to the sink; cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    places: Semaphore,
    buffer: Mutex<Buffer>,
    filled: Condvar,
    broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: usize,
    closed: bool,
}

/// The promise that one line will be taken. Dropped unused, the place is free again.
#[derive(Debug)]
pub(crate) struct LineSlot {
    shared: Option<Arc<Shared>>,
}

impl Audit {
    /// Starts the thread. The sink is written by nobody else.
    pub fn start(sink: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            places: Semaphore::new(PLACES),
            buffer: Mutex::new(Buffer::default()),
            filled: Condvar::new(),
            broken: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || write_lines(&for_thread, sink))?;
        Ok(Self { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Takes a place for one line; waits a little when the queue is full.
    pub(crate) async fn reserve(&self) -> Result<LineSlot, Blocked> {
        if self.is_broken() {
            return Err(Blocked);
        }
        if let Ok(permit) = self.shared.places.try_acquire() {
            permit.forget();
        } else {
            match tokio::time::timeout(PATIENCE, self.shared.places.acquire()).await {
                Ok(Ok(permit)) => permit.forget(),
                _ => return Err(Blocked),
            }
        }
        Ok(LineSlot { shared: Some(Arc::clone(&self.shared)) })
    }

    /// Whether the sink failed: it does not come back while this process runs.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire)
    }

    /// Writes what is left and ends the thread.
    pub fn close(&self) {
        self.shared.buffer.lock().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            error!("the audit thread ended in a panic");
        }
    }
}

impl LineSlot {
    /// Queues the line.
    pub(crate) fn write(self, line: &Line, subject: &Subject<'_>) {
        let mut text = Vec::with_capacity(LINE_CAPACITY);
        line.write(subject, &mut text);
        self.write_text(&text);
    }

    /// Queues a line that ends with a line feed.
    fn write_text(mut self, line: &[u8]) {
        let Some(shared) = self.shared.take() else { return };
        let mut buffer = shared.buffer.lock();
        let first = buffer.bytes.is_empty();
        buffer.bytes.extend_from_slice(line);
        buffer.lines += 1;
        drop(buffer);
        if first {
            shared.filled.notify_one();
        }
    }
}

impl Drop for LineSlot {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.places.add_permits(1);
        }
    }
}

fn write_lines(shared: &Shared, mut sink: impl Write) {
    let mut taken = Vec::with_capacity(ENOUGH);
    loop {
        let mut buffer = shared.buffer.lock();
        while buffer.bytes.is_empty() && !buffer.closed {
            shared.filled.wait(&mut buffer);
        }
        if buffer.bytes.len() < ENOUGH && !buffer.closed {
            drop(buffer);
            std::thread::sleep(GATHER);
            buffer = shared.buffer.lock();
        }
        if buffer.bytes.is_empty() && buffer.closed {
            return;
        }
        std::mem::swap(&mut buffer.bytes, &mut taken);
        let lines = std::mem::take(&mut buffer.lines);
        drop(buffer);
        if let Err(error) = sink.write_all(&taken).and_then(|()| sink.flush()) {
            // What cannot be audited is denied from here on; places that are taken stay taken.
            shared.broken.store(true, Ordering::Release);
            shared.places.close();
            error!(%error, "failed to write the audit record");
            return;
        }
        taken.clear();
        // A burst must not keep its memory for ever.
        taken.shrink_to(ENOUGH);
        shared.places.add_permits(lines);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Blocks until it is told otherwise.
    struct Blocking(Arc<(Mutex<bool>, Condvar)>);

    impl Write for Blocking {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut open = self.0.0.lock();
            while !*open {
                self.0.1.wait(&mut open);
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_line_is_written_once_and_in_order() {
        let sink = Sink::default();
        let audit = Audit::start(sink.clone()).unwrap();
        for number in 0..10_000 {
            audit.reserve().await.unwrap().write_text(format!("{number}\n").as_bytes());
        }
        audit.close();
        let written = String::from_utf8(sink.0.lock().clone()).unwrap();
        assert!(written.lines().map(|line| line.parse::<u32>().unwrap()).eq(0..10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_sink_denies_and_an_unblocked_one_allows_again() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let audit = Audit::start(Blocking(Arc::clone(&gate))).unwrap();
        for _ in 0..PLACES {
            audit.reserve().await.unwrap().write_text(b"line\n");
        }
        assert_eq!(audit.reserve().await.unwrap_err(), Blocked);
        *gate.0.lock() = true;
        gate.1.notify_all();
        audit.close();
        assert!(audit.reserve().await.is_ok());
    }

    #[tokio::test]
    async fn a_place_that_is_not_used_is_free_again() {
        let audit = Audit::start(std::io::sink()).unwrap();
        for _ in 0..3 * PLACES {
            drop(audit.reserve().await.unwrap());
        }
        assert!(audit.reserve().await.is_ok());
    }

    #[tokio::test]
    async fn a_broken_sink_denies_for_good() {
        let audit = Audit::start(Broken).unwrap();
        audit.reserve().await.unwrap().write_text(b"line\n");
        assert!(!audit.is_broken());
        audit.close();
        assert!(audit.is_broken());
        assert_eq!(audit.reserve().await.unwrap_err(), Blocked);
    }
}
