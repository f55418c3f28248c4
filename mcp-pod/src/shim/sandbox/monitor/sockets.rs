//! Sockets of a command that serves HTTP. The monitor makes them, so that it can tie them to the loopback interface before the
//! command has them: whatever address it binds, nothing outside its network namespace reaches it. All arguments of the call are
//! numbers, so nothing can change after they were checked.
//!
//! There are none of IPv6: without any privilege, such a socket is tied to another interface by bind(2) with a link-local address
//! and the number of that interface, and stays so if the call fails. Programs fall back to IPv4.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::super::sys;

/// The call that makes a socket.
pub(super) const CALL: libc::c_long = libc::SYS_socket;

/// A socket that a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    nonblocking: bool,
    pub(super) close_on_exec: bool,
}

impl Wanted {
    /// Reads the arguments of socket(2). The error is what the call returns.
    pub(super) fn read(arguments: &[u64; 6]) -> Result<Self, Errno> {
        // The kernel takes them as 32-bit numbers.
        let low = |argument: u64| u32::try_from(argument & u64::from(u32::MAX)).unwrap_or_default();
        let [family, kind, protocol, ..] = arguments.map(low);
        if family.cast_signed() != libc::AF_INET {
            return Err(Errno::AFNOSUPPORT);
        }
        let flags = kind & !0xf;
        let (nonblocking, close_on_exec) = (SocketFlags::NONBLOCK.bits(), SocketFlags::CLOEXEC.bits());
        match (kind & 0xf).cast_signed() {
            libc::SOCK_STREAM if flags & !(nonblocking | close_on_exec) != 0 => return Err(Errno::INVAL),
            libc::SOCK_STREAM => {}
            _ => return Err(Errno::AFNOSUPPORT),
        }
        if !matches!(protocol.cast_signed(), 0 | libc::IPPROTO_TCP) {
            return Err(Errno::PROTONOSUPPORT);
        }
        Ok(Self { nonblocking: flags & nonblocking != 0, close_on_exec: flags & close_on_exec != 0 })
    }

    /// Makes the socket, tied to the loopback interface.
    pub(super) fn make(self) -> io::Result<OwnedFd> {
        let mut flags = SocketFlags::CLOEXEC;
        flags.set(SocketFlags::NONBLOCK, self.nonblocking);
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sys::tie_to_loopback(socket.as_fd())?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(family: i32, kind: i32, protocol: i32) -> Result<Wanted, Errno> {
        Wanted::read(&[family, kind, protocol, 0, 0, 0].map(|argument| i64::from(argument).cast_unsigned()))
    }

    #[test]
    fn only_tcp_sockets_of_ipv4_are_made() {
        use libc::{AF_INET, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM};
        for protocol in [0, IPPROTO_TCP] {
            let wanted = read(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, protocol).unwrap();
            assert!(wanted.nonblocking && !wanted.close_on_exec);
            assert!(read(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, protocol).unwrap().close_on_exec);
        }
        for kind in (0..16).filter(|kind| *kind != SOCK_STREAM) {
            assert_eq!(read(AF_INET, kind, 0), Err(Errno::AFNOSUPPORT), "{kind}");
        }
        for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_SCTP, libc::IPPROTO_MPTCP, -1] {
            assert_eq!(read(AF_INET, SOCK_STREAM, protocol), Err(Errno::PROTONOSUPPORT), "{protocol}");
        }
        assert_eq!(read(AF_INET, SOCK_STREAM | 0x10, 0), Err(Errno::INVAL));
        for family in (-1..50).filter(|family| *family != AF_INET) {
            assert_eq!(read(family, SOCK_STREAM, 0), Err(Errno::AFNOSUPPORT), "{family}");
        }
    }
}
