//! One other gateway of the tenant, and the connections to it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use mcp_fleet_control::homes;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::upload::Upload;
use crate::gateway::connection::{bound_buffers, notice_loss};
use crate::gateway::memory::{Account, Reservation, Use};
use crate::gateway::pool::Pool;
use crate::tls::peer_name;

/// Bytes of one connection: TLS and HTTP state with their buffers.
pub(super) const CONNECTION: usize = 64 * 1024;
/// Bytes that are read at a time.
const READ_BUFFER: usize = 16 * 1024;
/// Bytes of the largest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// Longest time for the TCP connection and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Handshakes with one peer at a time: as many as a peer admits from an address that it does not know, so that a burst of
/// requests waits and is not refused.
const MAX_HANDSHAKES: usize = 16;
/// For how long a peer that could not be reached is not asked again.
const REST: Duration = Duration::from_secs(2);

/// One other gateway.
#[derive(Debug)]
pub(super) struct Peer {
    pod_uid: String,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    memory: Arc<Account>,
    idle: Pool<(Connection, Reservation)>,
    handshakes: Semaphore,
    /// Until when it is not asked, after it could not be reached.
    rests_until: Mutex<Option<Instant>>,
}

/// One HTTP/1.1 connection to a peer. Dropping it closes it, which the peer takes for a client that hangs up.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Upload>,
    driver: AbortHandle,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Peer {
    /// Returns a peer without connections. `memory` is the account for idle ones.
    pub(super) fn new(peer: homes::Peer, tls: Arc<ClientConfig>, memory: Arc<Account>) -> Self {
        let homes::Peer { pod_uid, address } = peer;
        let handshakes = Semaphore::new(MAX_HANDSHAKES);
        Self { pod_uid, address, tls, memory, idle: Pool::default(), handshakes, rests_until: Mutex::default() }
    }

    pub(super) fn pod_uid(&self) -> &str {
        &self.pod_uid
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns until when the peer is not asked, because it could not be reached a moment ago.
    pub(super) fn rests(&self, now: Instant) -> Option<Instant> {
        self.rests_until.lock().filter(|until| now < *until)
    }

    /// Notes that the peer could not be reached, or did not answer.
    pub(super) fn note_unreachable(&self, now: Instant) {
        *self.rests_until.lock() = Some(now + REST);
    }

    /// Takes out an idle connection of this thread. Its request then reserves memory for it.
    pub(super) fn take(&self) -> Option<Connection> {
        self.idle.take(Instant::now()).map(|(connection, _)| connection)
    }

    /// Keeps a connection for this thread's next request, or closes it if there is no memory for idle ones.
    pub(super) fn keep(&self, connection: Connection) {
        if let Ok(memory) = self.memory.reserve(CONNECTION, Use::Connection) {
            self.idle.put((connection, memory), Instant::now());
        }
    }

    /// Closes connections that have been idle for too long.
    pub(super) fn prune(&self, now: Instant) {
        self.idle.prune(now);
    }

    /// Waits until there is room for a handshake.
    pub(super) async fn turn(&self) -> io::Result<SemaphorePermit<'_>> {
        self.handshakes.acquire().await.map_err(io::Error::other)
    }

    /// Connects, within [`CONNECT_TIMEOUT`]. Notes if the peer cannot be reached; one that refuses the handshake can.
    pub(super) async fn open(&self, _turn: SemaphorePermit<'_>) -> io::Result<Connection> {
        if self.rests(Instant::now()).is_some() {
            // Another request has just found that out.
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let connect = async {
            let stream = connect(self.address).await.inspect_err(|error| {
                if is_of_network(error) {
                    self.note_unreachable(Instant::now());
                }
            })?;
            let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(peer_name(), stream).await?;
            let mut builder = http1::Builder::new();
            builder.max_buf_size(READ_BUFFER).max_header_size(MAX_HEAD);
            builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (sender, driver) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| {
            self.note_unreachable(Instant::now());
            Err(io::ErrorKind::TimedOut.into())
        })?;
        // Its requests see why it ends.
        let driver = tokio::spawn(async move { drop(driver.await) }).abort_handle();
        Ok(Connection { sender, driver })
    }
}

/// Returns whether a failure to connect says something of the peer or the way to it, and not of this machine.
fn is_of_network(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::TimedOut
    )
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    bound_buffers(&socket)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    notice_loss(&stream)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mcp_fleet_policy::units::Bytes as Size;
    use rustix::net::sockopt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::gateway::memory::Memory;
    use crate::tls::{Identity, client_config};

    /// Returns a peer at an address. No gateway has a certificate that it accepts.
    fn peer(address: SocketAddr) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["gateway.acme-mcp.svc".to_owned()]).unwrap();
        for (name, text) in [("tls.crt", pair.cert.pem()), ("ca.crt", pair.cert.pem())] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        let tls = client_config(Identity::load(dir.path()).unwrap(), "spiffe://mcp-fleet.dev/none").unwrap();
        let memory = Memory::new(Size::new(64 << 20)).connections;
        Peer::new(homes::Peer { pod_uid: "b".into(), address }, tls, memory)
    }

    #[tokio::test]
    async fn a_peer_that_could_not_be_reached_rests_and_one_that_refuses_does_not() {
        // Nobody listens, and nobody else gets the port.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let lost = peer(socket.local_addr().unwrap());
        let before = Instant::now();
        assert!(lost.rests(before).is_none() && lost.open(lost.turn().await.unwrap()).await.is_err());
        let until = lost.rests(before).unwrap();
        assert!(before + REST <= until && until <= Instant::now() + REST);
        assert_eq!(lost.rests(until), None, "it is asked again");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusing = peer(listener.local_addr().unwrap());
        let refuse = async { drop(listener.accept().await.unwrap()) };
        let (opened, ()) = tokio::join!(refusing.open(refusing.turn().await.unwrap()), refuse);
        assert!(opened.is_err());
        assert_eq!(refusing.rests(Instant::now()), None);
    }

    #[tokio::test]
    async fn the_loss_of_a_machine_is_noticed_on_a_silent_connection_whose_buffers_are_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 15_000);
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        // Probes have to begin early enough for the timeout.
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(5));
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(5));
        // The kernel doubles what it is told.
        assert!(sockopt::socket_send_buffer_size(&stream).unwrap() <= 128 * 1024);
        assert!(sockopt::socket_recv_buffer_size(&stream).unwrap() <= 128 * 1024);
    }
}
