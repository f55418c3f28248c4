//! The other gateways of the tenant that can be reached, and the connections to them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use mcp_fleet_control::homes;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::upload::Upload;
use crate::gateway::connection::keep_alive;
use crate::gateway::memory::{Account, Memory, Reservation};
use crate::gateway::pool::Pool;
use crate::gateway::upstream::Dialer;
use crate::tls::{client_config, peer_name};

/// Bytes of one connection: TLS and HTTP state with their buffers.
pub(super) const CONNECTION: usize = 64 * 1024;
/// Bytes that are read at a time.
const READ_BUFFER: usize = 16 * 1024;
/// Bytes of the largest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// Longest time for the TCP connection and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Handshakes with one peer at a time: fewer than the peer admits, so that a burst of requests waits and is not refused.
const MAX_HANDSHAKES: usize = 16;
/// Longest time that sent data may stay unacknowledged, also the probes of a silent connection: a machine that is lost says
/// nothing (tcp(7), `TCP_USER_TIMEOUT`).
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// The other gateways of the tenant.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Absent if this gateway has no certificate of a gateway, and can forward nothing.
    tls: Option<Arc<ClientConfig>>,
    /// Account for idle connections.
    memory: Arc<Account>,
    known: ArcSwap<Vec<Arc<Peer>>>,
    /// Whether there are any: all that a tenant with one gateway pays for.
    any: AtomicBool,
}

/// One other gateway.
#[derive(Debug)]
pub(super) struct Peer {
    pod_uid: String,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    memory: Arc<Account>,
    idle: Pool<(Connection, Reservation)>,
    handshakes: Semaphore,
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

impl Peers {
    /// Returns no peers. `dialer` has the certificate of this gateway.
    pub(crate) fn new(dialer: &Dialer, memory: &Memory) -> Self {
        // Only a gateway of the same tenant is a peer: it has the same name.
        let tls = match dialer {
            Dialer::Mutual(identity) => identity.uri().and_then(|uri| client_config(Arc::clone(identity), &uri)).ok(),
            Dialer::Plain => None,
        };
        let memory = Arc::clone(&memory.requests);
        Self { tls, memory, known: ArcSwap::default(), any: AtomicBool::new(false) }
    }

    /// Replaces the peers. Keeps the connections to those that stay.
    pub(crate) fn set(&self, peers: Vec<homes::Peer>) {
        let Some(tls) = &self.tls else { return };
        let before = self.known.load();
        if before
            .iter()
            .map(|peer| (&peer.pod_uid, &peer.address))
            .eq(peers.iter().map(|peer| (&peer.pod_uid, &peer.address)))
        {
            return;
        }
        let known = peers.into_iter().map(|homes::Peer { pod_uid, address }| {
            let same = before.iter().find(|peer| peer.pod_uid == pod_uid && peer.address == address);
            same.cloned().unwrap_or_else(|| {
                let (tls, memory) = (Arc::clone(tls), Arc::clone(&self.memory));
                Arc::new(Peer {
                    pod_uid,
                    address,
                    tls,
                    memory,
                    idle: Pool::default(),
                    handshakes: Semaphore::new(MAX_HANDSHAKES),
                })
            })
        });
        let known: Vec<_> = known.collect();
        self.any.store(!known.is_empty(), Ordering::Release);
        self.known.store(Arc::new(known));
    }

    /// Returns whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Returns the peer in the pod with this UID, if its address is known.
    pub(super) fn get(&self, pod_uid: &str) -> Option<Arc<Peer>> {
        self.known.load().iter().find(|peer| peer.pod_uid == pod_uid).cloned()
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn prune(&self) {
        self.known.load().iter().for_each(|peer| peer.idle.prune(Instant::now()));
    }
}

impl Peer {
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes out an idle connection of this thread. Its request then reserves memory for it.
    pub(super) fn take(&self) -> Option<Connection> {
        self.idle.take(Instant::now()).map(|(connection, _)| connection)
    }

    /// Keeps a connection for this thread's next request. Requests bound the number of connections, so its memory is counted
    /// whether there is room or not.
    pub(super) fn keep(&self, connection: Connection) {
        self.idle.put((connection, self.memory.count(CONNECTION)), Instant::now());
    }

    /// Connects, within [`CONNECT_TIMEOUT`].
    pub(super) async fn open(&self) -> io::Result<Connection> {
        let connect = async {
            let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
            let stream =
                TlsConnector::from(Arc::clone(&self.tls)).connect(peer_name(), connect(self.address).await?).await?;
            let mut builder = http1::Builder::new();
            builder.max_buf_size(READ_BUFFER).max_header_size(MAX_HEAD);
            builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (sender, driver) = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        // Its requests see why it ends.
        let driver = tokio::spawn(async move { drop(driver.await) }).abort_handle();
        Ok(Connection { sender, driver })
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let timeout = u32::try_from(SEND_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, timeout)?;
    keep_alive(&stream)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_loss_of_a_machine_is_noticed_on_a_silent_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), 15_000);
        assert!(rustix::net::sockopt::socket_keepalive(&stream).unwrap());
        // Probes have to begin early enough for the timeout.
        assert_eq!(rustix::net::sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(5));
        assert_eq!(rustix::net::sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(5));
    }
}
