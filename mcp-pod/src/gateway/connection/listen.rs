//! The gateway's listening sockets: accept connections, do the TLS handshake, and bound how many there are.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::address_limit::{AddressLimit, AddressSlot, limited};
use super::metered::Metered;
use super::peer::{self, PeerPlaces};
use super::places::Places;
use super::serve::{serve_connection, serve_h2};
use super::{Client, Refusal};
use crate::gateway::state::State;
use crate::gateway::workers::Workers;

/// Concurrent TLS handshakes of one address: each costs a signature, and the client is not authenticated yet.
const MAX_HANDSHAKES_PER_ADDRESS: u32 = 64;
/// Longest time that sent data may stay unacknowledged (tcp(7), `TCP_USER_TIMEOUT`). Also applies while the client's
/// window is closed, so a client that stops reading does not keep its connection.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time that a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same between two gateways, and the longest time that the probes of a silent connection may stay unanswered: a machine
/// that is lost says nothing.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the kernel probes a silent connection between two gateways.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes that the kernel may hold for one connection in each direction (socket(7); the kernel doubles the number for its
/// own data). They count against the memory limit of the container, and by default can be several megabytes.
const SOCKET_BUFFER: usize = 64 * 1024;

/// Accepts connections until the gateway closes. Open connections then end by themselves.
pub async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, workers: Workers, state: Arc<State>) {
    accept(listener, Security::Agents(TlsAcceptor::from(tls)), workers, state).await;
}

/// Accepts connections of other gateways of the tenant until the gateway closes. `tls` must accept nobody else
/// ([`crate::tls::server_config_mutual`]): what is received on these connections is taken for what that gateway has received.
pub async fn listen_peers(listener: TcpListener, tls: Arc<ServerConfig>, workers: Workers, state: Arc<State>) {
    accept(listener, Security::Peers(TlsAcceptor::from(tls)), workers, state).await;
}

/// Accepts connections without TLS: for the load test only, which compares with gateways that have none.
pub async fn listen_plain(listener: TcpListener, workers: Workers, state: Arc<State>) {
    accept(listener, Security::None, workers, state).await;
}

/// Who connects, and how that is secured.
#[derive(Clone)]
enum Security {
    /// Agents, which authenticate each request with a token.
    Agents(TlsAcceptor),
    /// Other gateways of the tenant, which have a certificate.
    Peers(TlsAcceptor),
    None,
}

/// Decides which connections are accepted.
enum Door {
    Agents(Arc<Places>, Arc<AddressLimit>),
    Peers(Arc<PeerPlaces>),
}

impl Door {
    fn new(security: &Security, state: &State) -> Self {
        let memory = state.memory.clone();
        match security {
            Security::Peers(_) => Self::Peers(PeerPlaces::new(memory)),
            Security::Agents(_) | Security::None => {
                Self::Agents(Places::new(memory), AddressLimit::new(MAX_HANDSHAKES_PER_ADDRESS))
            }
        }
    }

    /// Admits a connection to the TLS handshake.
    fn accept(&self, address: IpAddr, state: &State) -> Result<(Arc<Client>, AddressSlot), Refusal> {
        match self {
            Self::Agents(places, handshakes) => {
                let client = places.accept(address, Instant::now())?;
                Ok((client, handshakes.take(limited(address)).ok_or(Refusal::Handshakes)?))
            }
            Self::Peers(places) => {
                places.accept(address, state.peers.has_address(address), state.closing().child_token())
            }
        }
    }
}

async fn accept(listener: TcpListener, security: Security, workers: Workers, state: Arc<State>) {
    let door = Door::new(&security, &state);
    let closing = state.closing();
    // Accepted sockets inherit the sizes.
    if let Err(error) = bound_buffers(&listener) {
        warn!(%error, "failed to bound the socket buffers of connections");
    }
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accept_next(&listener) => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually there are no file descriptors left, and other connections may end meanwhile.
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Refused connections are closed at once, so that those of clients with a place need not wait for one.
        let (client, handshake) = match door.accept(address, &state) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                debug!(%address, reason = refusal.as_str(), "refused a connection");
                state.metrics.count_refused_connection(refusal);
                continue;
            }
        };
        let (security, state) = (security.clone(), Arc::clone(&state));
        workers.spawn(move || async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, client, security, handshake, state).await,
                Err(error) => warn!(%error, "failed to hand a connection to its worker thread"),
            }
        });
    }
}

/// Bounds the kernel's buffers of a socket that is not connected yet.
pub(crate) fn bound_buffers(socket: &impl AsFd) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER)?;
    rustix::net::sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER)?;
    Ok(())
}

/// Has the kernel end a connection between two gateways when the machine at the other end is lost. It probes a silent connection
/// for that (tcp(7), `TCP_KEEPIDLE`).
pub(crate) fn notice_loss(stream: &TcpStream) -> std::io::Result<()> {
    let timeout = u32::try_from(PEER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, timeout)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, PROBE_INTERVAL)?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    Ok(())
}

/// Accepts the next connection and detaches its socket from this runtime. Returns the address of the client, which is one of IPv4
/// if the client has one: the listener gives it in the form of IPv6, and what an address may hold must not depend on the form.
async fn accept_next(listener: &TcpListener) -> std::io::Result<(std::net::TcpStream, IpAddr)> {
    let (stream, client) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let send_timeout = u32::try_from(SEND_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, send_timeout)?;
    Ok((stream.into_std()?, client.ip().to_canonical()))
}

async fn serve(stream: TcpStream, client: Arc<Client>, security: Security, handshake: AddressSlot, state: Arc<State>) {
    let stream = Metered::new(stream, Arc::clone(&client));
    let acceptor = match security {
        Security::Agents(acceptor) => acceptor,
        Security::Peers(acceptor) => {
            if let Err(error) = notice_loss(stream.get_ref()) {
                warn!(%error, "failed to have the connection of a gateway probed");
            }
            acceptor
        }
        Security::None => {
            drop(handshake);
            return serve_connection(stream, client, state).await;
        }
    };
    let secured = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    drop(handshake);
    client.claim_input();
    if let (Some(place), Ok(Ok(_))) = (client.as_peer(), &secured)
        && let Err(full) = place.note_secured()
    {
        debug!(%full, client = %client.address, "refused the connection of a gateway");
        return state.metrics.count_refused_connection(peer::refusal(full));
    }
    match secured {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => match client.upgrade_to_http2() {
            Ok(()) => serve_h2(stream, client, state).await,
            Err(full) => {
                debug!(%full, client = %client.address, "refused an HTTP/2 connection");
                state.metrics.count_refused_connection(full.into());
            }
        },
        Ok(Ok(stream)) => serve_connection(stream, client, state).await,
        Ok(Err(error)) => debug!(%error, client = %client.address, "a TLS handshake failed"),
        Err(_) => debug!(client = %client.address, "a TLS handshake took too long"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[tokio::test]
    async fn a_client_has_one_address_whatever_the_family_of_the_listener() {
        let both = mcp_fleet_admin::listen((Ipv6Addr::UNSPECIFIED, 0).into()).await.unwrap();
        let one = mcp_fleet_admin::listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        for listener in [both, one] {
            let port = listener.local_addr().unwrap().port();
            let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            assert_eq!(accept_next(&listener).await.unwrap().1, Ipv4Addr::LOCALHOST);
        }
    }
}
