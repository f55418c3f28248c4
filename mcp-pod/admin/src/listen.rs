//! Listening sockets that take both families of addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel completes before they are accepted, as tokio has it.
const BACKLOG: u32 = 1024;

/// Listens on an address. `[::]` takes IPv4 as well, whatever the kernel's default is (ipv6(7), `IPV6_V6ONLY`), and where the
/// kernel has no IPv6, it is `0.0.0.0`. Peers of IPv4 then have mapped addresses: see [`std::net::IpAddr::to_canonical`].
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        on_both(address, TcpSocket::new_v6)
    } else {
        TcpListener::bind(address).await
    }
}

fn on_both(address: SocketAddr, new_socket: impl FnOnce() -> io::Result<TcpSocket>) -> io::Result<TcpListener> {
    let both = new_socket().and_then(|socket| {
        set_ipv6_v6only(&socket, false)?;
        bind(&socket, address)?;
        socket.listen(BACKLOG)
    });
    match both {
        Err(error) if has_no_ipv6(&error) => {
            let socket = TcpSocket::new_v4()?;
            bind(&socket, (Ipv4Addr::UNSPECIFIED, address.port()).into())?;
            socket.listen(BACKLOG)
        }
        other => other,
    }
}

fn bind(socket: &TcpSocket, address: SocketAddr) -> io::Result<()> {
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// Whether an error means that the kernel has no IPv6, or that it is disabled.
fn has_no_ipv6(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].contains(&errno))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpStream;

    use super::*;

    const BOTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    #[tokio::test]
    async fn peers_of_both_families_can_connect() {
        let listener = listen(BOTH).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), Ipv4Addr::LOCALHOST);
        assert_eq!(peer.port(), client.local_addr().unwrap().port());
        // Not every machine has IPv6.
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
            let _client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1.ip(), Ipv6Addr::LOCALHOST);
        }
    }

    #[tokio::test]
    async fn without_ipv6_peers_of_ipv4_can_connect() {
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let listener = on_both(BOTH, || Err(errno.into())).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(address.ip(), Ipv4Addr::UNSPECIFIED);
            TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_not_taken_in_another_family() {
        let first = listen(BOTH).await.unwrap();
        let taken = SocketAddr::new(BOTH.ip(), first.local_addr().unwrap().port());
        assert_eq!(listen(taken).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn one_address_is_one_address() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    }
}
