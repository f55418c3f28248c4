//! Decides about the system calls that the filter sends to the shim (seccomp_unotify(2)): [`forks`], and the [`sockets`] of a
//! command that serves HTTP.
//!
//! `sandbox-exec` installs the filter and sends its listener to the shim over a socket, before it executes the command.
//! A thread of the shim receives each call and lets it continue or fail, or answers it. It never reads the memory of the caller, so
//! there is nothing that could change between the decision and the call. If the thread ends, the listener is closed and
//! the kernel fails these calls.

pub(super) mod forks;
mod sockets;

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use self::forks::{Decision, ForkLimit};
use super::super::processes;
use super::sys::{self, Notification, Response};

/// Returns the calls that the filter sends to the monitor, of a command that serves HTTP or of any other one.
pub(super) fn calls(serves: bool) -> impl Iterator<Item = libc::c_long> {
    forks::CALLS.iter().copied().chain(serves.then_some(sockets::CALL))
}

/// How often the log says that processes are refused.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Why the monitor of a running command ended.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The listener did not arrive.
    #[error("failed to receive the listener of the system call filter")]
    Listener(#[source] io::Error),
    /// The kernel does not take or give notifications.
    #[error("failed to handle a system call of the command")]
    Notification(#[source] io::Error),
}

/// The monitor of one sandboxed command. It works until the last process of the sandbox has ended.
#[derive(Debug)]
pub struct Monitor {
    refuse_forks: Arc<AtomicBool>,
    failed: oneshot::Receiver<MonitorError>,
}

impl Monitor {
    /// Starts a monitor, of a command that serves HTTP or of any other one. Returns it with the socket on which it expects the
    /// listener.
    pub(super) fn start(max_processes: usize, serves: bool) -> io::Result<(Self, OwnedFd)> {
        let (socket, remote) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let refuse_forks = Arc::new(AtomicBool::new(false));
        let (sender, failed) = oneshot::channel();
        let worker = Worker {
            limit: ForkLimit::new(max_processes),
            max_processes,
            serves,
            refuse_forks: Arc::clone(&refuse_forks),
            warned: None,
            warned_of_sockets: None,
        };
        std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            if let Err(error) = worker.run(socket) {
                // This fails if nobody waits for the command any more.
                let _ = sender.send(error);
            }
        })?;
        Ok((Self { refuse_forks, failed }, remote))
    }

    /// Refuses new processes and threads from now on.
    pub fn refuse_forks(&self) {
        self.refuse_forks.store(true, Ordering::Relaxed);
    }

    /// Waits until the monitor fails. From then on, the command cannot create processes or threads.
    pub async fn failed(&mut self) -> MonitorError {
        match (&mut self.failed).await {
            Ok(error) => error,
            // It ended with the sandbox.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Sends the listener to the monitor at the other end of the socket.
pub(super) fn send_listener(socket: BorrowedFd<'_>, listener: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let listeners = [listener];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&listeners)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(b"1")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives the listener. `None` if the socket was closed before: the sandbox was not set up.
fn receive_listener(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let listener = descriptors.find_map(|mut descriptors| descriptors.next());
    listener.map(Some).ok_or_else(|| io::Error::other("the message has no descriptor"))
}

/// The thread of a monitor.
struct Worker {
    limit: ForkLimit,
    max_processes: usize,
    serves: bool,
    refuse_forks: Arc<AtomicBool>,
    warned: Option<Instant>,
    warned_of_sockets: Option<Instant>,
}

impl Worker {
    fn run(mut self, socket: OwnedFd) -> Result<(), MonitorError> {
        let Some(listener) = receive_listener(socket.as_fd()).map_err(MonitorError::Listener)? else { return Ok(()) };
        drop(socket);
        // Until a call is received, a signal interrupts it, and the server sees that (docs/sandbox.md). So it is received as
        // early as the kernel can do that; an earlier kernel does less.
        for result in [sys::wake_up_at_once(listener.as_fd()), sys::take_short_slices()] {
            if let Err(error) = result {
                debug!(%error, "calls that create processes are received later than they could be");
            }
        }
        self.serve(listener.as_fd()).map_err(MonitorError::Notification)
    }

    /// Receives calls and responds to them in their order, until no process is left in the sandbox. All calls that there are
    /// are received before one is responded to, because a response may have to wait.
    fn serve(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let mut calls = VecDeque::new();
        let mut pause = None;
        loop {
            match wait(listener, pause)? {
                Wait::Ended => return Ok(()),
                Wait::Call => {
                    calls.extend(if_exists(sys::receive(listener))?.filter(|call| !self.gave_socket(listener, call)));
                    pause = Some(Duration::ZERO);
                }
                Wait::Over => pause = self.respond(listener, &mut calls)?,
            }
        }
    }

    /// Responds to calls until one cannot be decided yet. Returns after which time it may be.
    fn respond(
        &mut self,
        listener: BorrowedFd<'_>,
        calls: &mut VecDeque<Notification>,
    ) -> io::Result<Option<Duration>> {
        while let Some(Notification { id, call, .. }) = calls.front() {
            let response = if forks::CALLS.contains(call) {
                match self.fork() {
                    Decision::Allow => Response::Continue,
                    // As for any other limit on processes, see fork(2).
                    Decision::Refuse => Response::Errno(libc::EAGAIN),
                    Decision::Wait(time) => return Ok(Some(time)),
                }
            } else {
                Response::Errno(libc::ENOSYS)
            };
            respond(listener, *id, response)?;
            calls.pop_front();
        }
        Ok(None)
    }

    /// Answers a call that makes a socket, without waiting for calls before it. Returns whether it is one, and has an answer.
    fn gave_socket(&mut self, listener: BorrowedFd<'_>, call: &Notification) -> bool {
        if call.call != sockets::CALL || !self.serves {
            return false;
        }
        let answered = match give_socket(listener, call) {
            Ok(()) => return true,
            Err(error @ (Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::INVAL)) => {
                respond(listener, call.id, Response::Errno(error.raw_os_error()))
            }
            Err(error) => {
                if self.warned_of_sockets.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL) {
                    self.warned_of_sockets = Some(Instant::now());
                    warn!(%error, "failed to make a socket for the server");
                }
                respond(listener, call.id, Response::Errno(error.raw_os_error()))
            }
        };
        answered.is_ok()
    }

    fn fork(&mut self) -> Decision {
        if self.refuse_forks.load(Ordering::Relaxed) {
            return Decision::Refuse;
        }
        let mut uncounted = None;
        let count = || count_processes().map_err(|error| uncounted = Some(error)).ok();
        let decision = self.limit.decide(Instant::now(), count);
        if decision == Decision::Refuse {
            self.warn(uncounted.as_ref());
        }
        decision
    }

    fn warn(&mut self, uncounted: Option<&io::Error>) {
        if self.warned.is_some_and(|warned| warned.elapsed() < WARN_INTERVAL) {
            return;
        }
        self.warned = Some(Instant::now());
        if let Some(error) = uncounted {
            warn!(%error, "failed to count the processes of the server, so it cannot create new ones");
        } else {
            warn!(limit = self.max_processes, "the server has as many processes and threads as it may have");
        }
    }
}

/// Responds to the notification with this id, unless its call has ended.
fn respond(listener: BorrowedFd<'_>, id: u64, response: Response) -> io::Result<()> {
    let responded = loop {
        match sys::respond(listener, id, response) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    if_exists(responded).map(drop)
}

/// Makes the socket that a call asks for, and gives it to the process that made the call. The error is what the call returns.
fn give_socket(listener: BorrowedFd<'_>, call: &Notification) -> Result<(), Errno> {
    let os_error = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::NOBUFS);
    let wanted = sockets::Wanted::read(&call.arguments)?;
    let socket = wanted.make().map_err(os_error)?;
    let given = loop {
        match sys::respond_with(listener, call.id, socket.as_fd(), wanted.close_on_exec) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    if_exists(given).map(drop).map_err(os_error)
}

/// How a wait for a notification ended.
enum Wait {
    Call,
    /// There was none in the given time.
    Over,
    /// There will be none, because no process is left in the sandbox.
    Ended,
}

/// Waits for a notification, for this time or without a limit.
fn wait(listener: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<Wait> {
    let time = time.map(|time| time.try_into().map_err(io::Error::other)).transpose()?;
    let mut polled = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    let count = rustix::io::retry_on_intr(|| poll(&mut polled, time.as_ref()))?;
    let is_ready = polled.iter().any(|polled| polled.revents().contains(PollFlags::IN));
    Ok(match count {
        0 => Wait::Over,
        _ if is_ready => Wait::Call,
        _ => Wait::Ended,
    })
}

/// Returns `None` if the process that made the call has ended, or if a signal interrupted the call or this thread.
fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::INTR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the number of processes and threads among the descendants of this process.
fn count_processes() -> io::Result<usize> {
    Ok(processes::descendant_threads(&processes::all()?, rustix::process::getpid()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_thread_can_take_short_slices() {
        sys::take_short_slices().unwrap();
    }

    #[tokio::test]
    async fn a_monitor_that_does_not_get_a_listener_fails() {
        let (mut monitor, socket) = Monitor::start(1, false).unwrap();
        rustix::net::send(&socket, b"1", SendFlags::empty()).unwrap();
        assert!(matches!(monitor.failed().await, MonitorError::Listener(_)));

        let (mut monitor, socket) = Monitor::start(1, false).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send_listener(socket.as_fd(), file.as_fd()).unwrap();
        assert!(matches!(monitor.failed().await, MonitorError::Notification(_)));
    }

    #[tokio::test]
    async fn a_monitor_of_a_command_that_did_not_start_just_ends() {
        let (mut monitor, socket) = Monitor::start(1, false).unwrap();
        drop(socket);
        assert!(tokio::time::timeout(Duration::from_millis(100), monitor.failed()).await.is_err());
    }
}
