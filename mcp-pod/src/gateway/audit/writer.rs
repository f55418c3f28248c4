//! A bounded queue of audit lines, and the thread that writes them.
//!
//! Lines collect in one buffer, and the thread writes the whole buffer at a time. Under load one `write` carries many
//! lines, and a call waits only if the pipe has been full for long. A line that must be written before its call goes on
//! ([`LineSlot::write_now`]) is not collected: the thread writes the buffer at once and then notifies the call.
//!
//! Waking a thread is a system call. So while lines keep coming, the thread looks by itself whether there are any, and a call
//! wakes it only after a pause.
//!
//! The thread also links the lines to a chain, in the order in which it writes them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mcp_fleet_audit::{Chain, Head};
use mcp_fleet_policy::class::Class;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Semaphore, oneshot};
use tracing::error;
use ulid::Ulid;

use super::{Line, Subject};

/// Lines that may be queued or reserved at a time.
const SLOTS: usize = 4096;
/// How long the thread lets lines collect before it writes them. Those lines are lost if the process is killed meanwhile,
/// like calls in flight; a call that may change something has left its first line before.
const COLLECT_TIME: Duration = Duration::from_millis(4);
/// Size of a buffer that is written at once.
const FULL_BUFFER: usize = 64 * 1024;
/// Bytes reserved for the text of a line; a typical line is shorter.
const LINE_CAPACITY: usize = 768;

/// The sink is blocked or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to write to the audit log in time")]
pub(crate) struct Blocked;

/// Handle to the audit trail. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    timeout: Duration,
    slots: Semaphore,
    buffer: Mutex<Buffer>,
    filled: Condvar,
    broken: AtomicBool,
    /// The last line that the sink has taken.
    head: Mutex<Option<Head>>,
}

#[derive(Debug, Default)]
struct Buffer {
    /// Lines that are not linked yet, each with a line feed instead of its closing brace.
    bytes: Vec<u8>,
    lines: usize,
    /// Calls that wait until their line is written.
    waiting: Vec<oneshot::Sender<()>>,
    /// The thread waits until it is woken.
    idle: bool,
    closed: bool,
}

/// Room for one line in the queue, freed if it is dropped unused.
#[derive(Debug)]
pub(crate) struct LineSlot {
    shared: Option<Arc<Shared>>,
}

/// Room for the lines of one call.
#[derive(Debug)]
pub(crate) struct CallSlots {
    /// For the line before the call is forwarded. Calls that change nothing have none.
    pub(crate) admission: Option<LineSlot>,
    /// For the line when the call is settled.
    pub(crate) outcome: LineSlot,
}

/// A line that the thread is about to write.
#[derive(Debug)]
pub(crate) struct PendingLine(oneshot::Receiver<()>, Duration);

impl Audit {
    /// Starts the thread, which must be the only writer of the sink. A call waits at most `timeout` for a slot, or until
    /// its line is written, before it is denied.
    pub fn start(sink: impl Write + Send + 'static, timeout: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            timeout,
            slots: Semaphore::new(SLOTS),
            buffer: Mutex::new(Buffer::default()),
            filled: Condvar::new(),
            broken: AtomicBool::new(false),
            head: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || write_lines(&for_thread, sink))?;
        Ok(Self { shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Reserves room for one line. Waits a little when the queue is full.
    pub(crate) async fn reserve(&self) -> Result<LineSlot, Blocked> {
        if self.is_broken() {
            return Err(Blocked);
        }
        if let Ok(permit) = self.shared.slots.try_acquire() {
            permit.forget();
        } else {
            match tokio::time::timeout(self.shared.timeout, self.shared.slots.acquire()).await {
                Ok(Ok(permit)) => permit.forget(),
                _ => return Err(Blocked),
            }
        }
        Ok(LineSlot { shared: Some(Arc::clone(&self.shared)) })
    }

    /// Reserves room for the lines of a call of a tool of this class.
    pub(crate) async fn reserve_call(&self, class: Class) -> Result<CallSlots, Blocked> {
        let admission = match class {
            Class::Read => None,
            Class::Write | Class::Destructive => Some(self.reserve().await?),
        };
        Ok(CallSlots { admission, outcome: self.reserve().await? })
    }

    /// Returns the last line that the sink has taken; none before the first.
    pub(crate) fn head(&self) -> Option<Head> {
        *self.shared.head.lock()
    }

    /// Returns whether the sink has failed. It stays broken while this process runs.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Acquire)
    }

    /// Writes the queued lines and ends the thread.
    pub fn close(&self) {
        self.shared.buffer.lock().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            error!("the audit thread panicked");
        }
    }
}

impl LineSlot {
    /// Queues the line.
    pub(crate) fn write(self, line: &Line, subject: &Subject<'_>) {
        self.write_text(&text(line, subject), None);
    }

    /// Queues the line and lets the thread write it at once.
    pub(crate) fn write_now(self, line: &Line, subject: &Subject<'_>) -> PendingLine {
        let (written, pending) = oneshot::channel();
        let timeout = self.shared.as_ref().map_or(Duration::ZERO, |shared| shared.timeout);
        self.write_text(&text(line, subject), Some(written));
        PendingLine(pending, timeout)
    }

    /// Queues a line without its closing brace. `written` is notified once the line is written, at once.
    fn write_text(mut self, line: &[u8], written: Option<oneshot::Sender<()>>) {
        let Some(shared) = self.shared.take() else { return };
        let mut buffer = shared.buffer.lock();
        let full = buffer.bytes.len() + line.len() >= FULL_BUFFER;
        let notify = std::mem::take(&mut buffer.idle) || written.is_some() || full;
        buffer.bytes.extend_from_slice(line);
        buffer.bytes.push(b'\n');
        buffer.lines += 1;
        buffer.waiting.extend(written);
        drop(buffer);
        if notify {
            shared.filled.notify_one();
        }
    }
}

/// Returns the text of a line without its closing brace.
fn text(line: &Line, subject: &Subject<'_>) -> Vec<u8> {
    let mut text = Vec::with_capacity(LINE_CAPACITY);
    line.write(subject, &mut text);
    text
}

impl PendingLine {
    /// Waits until the sink has taken the line, for a limited time.
    pub(crate) async fn written(self) -> Result<(), Blocked> {
        match tokio::time::timeout(self.1, self.0).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Blocked),
        }
    }
}

impl Drop for LineSlot {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.slots.add_permits(1);
        }
    }
}

/// Lets lines collect, until one of them must be written at once.
fn collect(shared: &Shared, buffer: &mut MutexGuard<'_, Buffer>) {
    let collected = Instant::now() + COLLECT_TIME;
    while buffer.bytes.len() < FULL_BUFFER && buffer.waiting.is_empty() && !buffer.closed {
        if shared.filled.wait_until(buffer, collected).timed_out() {
            break;
        }
    }
}

fn write_lines(shared: &Shared, mut sink: impl Write) {
    let (mut taken, mut linked) = (Vec::with_capacity(FULL_BUFFER), Vec::with_capacity(FULL_BUFFER));
    let mut chain = Chain::new(Ulid::generate());
    loop {
        let mut buffer = shared.buffer.lock();
        collect(shared, &mut buffer);
        while buffer.bytes.is_empty() {
            if buffer.closed {
                return;
            }
            buffer.idle = true;
            shared.filled.wait(&mut buffer);
            collect(shared, &mut buffer);
        }
        buffer.idle = false;
        std::mem::swap(&mut buffer.bytes, &mut taken);
        let lines = std::mem::take(&mut buffer.lines);
        let waiting = std::mem::take(&mut buffer.waiting);
        drop(buffer);
        // JSON that the gateway writes has no line feed inside.
        for line in taken.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            chain.link(line, &mut linked);
        }
        if let Err(error) = sink.write_all(&linked).and_then(|()| sink.flush()) {
            // Without an audit trail everything is denied from now on. Reserved slots are not freed.
            shared.broken.store(true, Ordering::Release);
            shared.slots.close();
            error!(%error, "failed to write the audit trail");
            return;
        }
        *shared.head.lock() = chain.head();
        for written in waiting {
            // A call that was cancelled does not wait any more.
            let _ = written.send(());
        }
        for buffer in [&mut taken, &mut linked] {
            buffer.clear();
            // Gives back the memory of a burst.
            buffer.shrink_to(FULL_BUFFER);
        }
        shared.slots.add_permits(lines);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mcp_fleet_audit::{Checkpoint, Verifier};

    use super::*;

    /// How long a call waits in tests. Only a hang takes longer, however busy the machine is.
    const PATIENCE: Duration = Duration::from_secs(60);

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

    /// Blocks until the gate is opened.
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
        let audit = Audit::start(sink.clone(), PATIENCE).unwrap();
        for number in 0..10_000 {
            audit.reserve().await.unwrap().write_text(format!("{{\"audit\":{number}").as_bytes(), None);
        }
        audit.close();
        let written = String::from_utf8(sink.0.lock().clone()).unwrap();
        let numbers =
            written.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["audit"].clone());
        assert!(numbers.eq(0..10_000));
        let mut verifier = Verifier::new();
        verifier.read_log(0, written.as_bytes()).unwrap();
        let checkpoint = Checkpoint { head: audit.head().unwrap(), pod: "gateway-1".into() };
        let report = verifier.finish(&[checkpoint], false);
        assert_eq!((report.problems, report.chains[0].confirmed), (vec![], 10_000));
    }

    #[tokio::test]
    async fn a_call_that_waits_for_its_line_goes_on_when_the_sink_has_it() {
        let sink = Sink::default();
        let audit = Audit::start(sink.clone(), PATIENCE).unwrap();
        let (written, pending) = oneshot::channel();
        audit.reserve().await.unwrap().write_text(b"{\"audit\":1", None);
        audit.reserve().await.unwrap().write_text(b"{\"audit\":2", Some(written));
        PendingLine(pending, PATIENCE).written().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&sink.0.lock()).lines().count(), 2);
    }

    #[tokio::test]
    async fn a_call_that_waits_for_its_line_is_denied_when_the_sink_breaks() {
        let audit = Audit::start(Broken, PATIENCE).unwrap();
        let (written, pending) = oneshot::channel();
        audit.reserve().await.unwrap().write_text(b"{\"audit\":1", Some(written));
        assert_eq!(PendingLine(pending, PATIENCE).written().await, Err(Blocked));
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_sink_denies_until_it_is_unblocked() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let audit = Audit::start(Blocking(Arc::clone(&gate)), Duration::from_secs(1)).unwrap();
        for _ in 0..SLOTS {
            audit.reserve().await.unwrap().write_text(b"{\"audit\":1", None);
        }
        assert_eq!(audit.reserve().await.unwrap_err(), Blocked);
        *gate.0.lock() = true;
        gate.1.notify_all();
        audit.close();
        assert!(audit.reserve().await.is_ok());
    }

    #[tokio::test]
    async fn a_slot_that_is_not_used_is_free_again() {
        let audit = Audit::start(std::io::sink(), PATIENCE).unwrap();
        for _ in 0..3 * SLOTS {
            drop(audit.reserve().await.unwrap());
        }
        assert!(audit.reserve().await.is_ok());
    }

    #[tokio::test]
    async fn a_broken_sink_denies_for_good() {
        let audit = Audit::start(Broken, PATIENCE).unwrap();
        assert!(!audit.is_broken());
        audit.reserve().await.unwrap().write_text(b"{\"audit\":1", None);
        audit.close();
        assert!(audit.is_broken());
        assert_eq!(audit.reserve().await.unwrap_err(), Blocked);
    }
}
