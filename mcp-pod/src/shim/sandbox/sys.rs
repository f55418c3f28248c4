//! The system calls of the sandbox that have no safe wrapper: close_range(2), sched_setattr(2), one socket option, and seccomp
//! user notifications (seccomp_unotify(2)). All unsafe code of the shim is here. Every structure that is passed to the kernel is one of the
//! libc crate, and the kernel keeps no pointer to any of them after a call.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use seccompiler::sock_filter;

/// Makes `exec` close all descriptors except stdin, stdout and stderr.
pub(super) fn close_descriptors_on_exec() -> io::Result<()> {
    // SAFETY: with CLOEXEC, close_range(2) only sets flags on descriptors. It does not access memory of this process.
    let status = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    check(status.into()).map(drop)
}

/// Takes ownership of a descriptor that this process inherited. Fails if it is not open, or a standard descriptor. Must
/// be called once per number, before this process opens descriptors of its own.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only reads a flag of the descriptor, and fails if there is none with this number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    check(flags.into())?;
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is open, and nothing else in this process owns it: it was inherited.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Installs a filter on this thread and all its future children, and returns the listener for the calls that it sends to
/// user space. `exec` closes the listener. While nobody has it open, these calls return ENOSYS.
pub(super) fn install_with_listener(program: &[sock_filter]) -> io::Result<OwnedFd> {
    // Once the monitor has received a notification, only a fatal signal interrupts the call, so that a program with many
    // signals does not start the same call again and again.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the kernel copies the program, of which pointer and length are those of a slice. `sock_filter` of both
    // crates is the kernel's structure.
    let listener =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program)) };
    let listener = check(listener)?;
    let listener = RawFd::try_from(listener).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Makes a call that waits for a response wake up the thread that polls the listener on its own processor, where that
/// thread need not wait for another one. Fails before Linux 6.6.
pub(super) fn wake_up_at_once(listener: BorrowedFd<'_>) -> io::Result<()> {
    // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, which the libc crate does not have.
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: the kernel takes the flags as a number.
    let status = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
    check(status.into()).map(drop)
}

/// Gives this thread the shortest time slices, so that it runs before other threads when it wakes up. Has no effect before
/// Linux 6.12.
pub(super) fn take_short_slices() -> io::Result<()> {
    /// Nanoseconds.
    const SHORTEST: u64 = 100_000;
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?,
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: SHORTEST,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel only reads the structure, which contains its size.
    let status = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) };
    check(status).map(drop)
}

/// A system call that waits for a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notification {
    pub(super) id: u64,
    /// Number of the call.
    pub(super) call: libc::c_long,
    /// Its arguments. What a pointer among them points to may change at any time.
    pub(super) arguments: [u64; 6],
}

/// How a system call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// The kernel executes it. Arguments in memory may have changed since the notification, so no decision to continue
    /// may depend on them (seccomp_unotify(2)).
    Continue,
    /// It returns this error.
    Errno(i32),
}

/// Receives one notification. Blocks until there is one. The error is `ENOENT` if the call was interrupted.
pub(super) fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    let mut notification = libc::seccomp_notif {
        id: 0,
        pid: 0,
        flags: 0,
        data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
    };
    // SAFETY: the request's number contains the size of the structure, so the kernel never writes more than that.
    let status = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, std::ptr::from_mut(&mut notification))
    };
    check(status.into())?;
    Ok(Notification { id: notification.id, call: notification.data.nr.into(), arguments: notification.data.args })
}

/// Responds to the notification with this id. The error is `ENOENT` if its call has ended in the meantime.
pub(super) fn respond(listener: BorrowedFd<'_>, id: u64, response: Response) -> io::Result<()> {
    let (error, flags) = match response {
        Response::Continue => (0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).map_err(io::Error::other)?),
        Response::Errno(errno) => (-errno, 0),
    };
    let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the request's number contains the size of the structure, so the kernel never reads or writes more.
    let status =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, std::ptr::from_mut(&mut response)) };
    check(status.into()).map(drop)
}

/// Gives a copy of a descriptor to the process that made the call of the notification with this id. The call returns its number
/// there. The error is `ENOENT` if the call has ended in the meantime; another one if the process cannot have the descriptor,
/// and then the call still waits for a response.
pub(super) fn respond_with(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let mut response = libc::seccomp_notif_addfd {
        id,
        flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).map_err(io::Error::other)?,
        srcfd: descriptor.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: the request's number contains the size of the structure, so the kernel never reads more.
    let status = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, std::ptr::from_mut(&mut response))
    };
    check(status.into()).map(drop)
}

/// Ties a socket of IPv4 to the loopback interface: nothing is sent or received on it over another one, whatever address it is
/// bound to. Only a process with `CAP_NET_RAW` can undo it (socket(7), `SO_BINDTODEVICE`). One of IPv6 can be tied to another
/// interface by bind(2), without any privilege.
pub(super) fn tie_to_loopback(socket: BorrowedFd<'_>) -> io::Result<()> {
    const LOOPBACK: &[u8] = b"lo\0";
    let length = libc::socklen_t::try_from(LOOPBACK.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads as many bytes as the text has.
    let status = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
        libc::setsockopt(socket.as_raw_fd(), level, option, LOOPBACK.as_ptr().cast(), length)
    };
    check(status.into()).map(drop)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
