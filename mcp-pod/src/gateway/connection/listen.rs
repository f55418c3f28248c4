//! The gateway's listening socket: accepts connections, does the TLS handshake, and bounds how many there are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::address_limit::{AddressLimit, AddressSlot};
use super::metered::Metered;
use super::places::Places;
use super::serve::{serve_connection, serve_h2};
use super::{Peer, Refusal};
use crate::gateway::state::State;
use crate::gateway::workers::Workers;

/// Concurrent TLS handshakes of one address: each costs a signature, and the client is not authenticated yet.
const MAX_HANDSHAKES_PER_ADDRESS: u32 = 64;
/// Longest time that sent data may stay unacknowledged (tcp(7), `TCP_USER_TIMEOUT`). Also applies while the client's
/// window is closed, so a client that stops reading does not keep its connection.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time that a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that the kernel may hold for one connection in each direction (socket(7); the kernel doubles the number for its
/// own data). They count against the memory limit of the container, and by default can be several megabytes.
const SOCKET_BUFFER: usize = 64 * 1024;

/// Accepts connections until the gateway closes. Open connections then end by themselves.
pub async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, workers: Workers, state: Arc<State>) {
    accept(listener, Some(TlsAcceptor::from(tls)), workers, state).await;
}

/// Accepts connections without TLS: for the load test only, which compares with gateways that have none.
pub async fn listen_plain(listener: TcpListener, workers: Workers, state: Arc<State>) {
    accept(listener, None, workers, state).await;
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, workers: Workers, state: Arc<State>) {
    let places = Places::new(state.memory.clone());
    let handshakes = AddressLimit::new(MAX_HANDSHAKES_PER_ADDRESS);
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
        let admitted = places.accept(address, Instant::now());
        let admitted = admitted.and_then(|peer| Ok((peer, handshakes.take(address).ok_or(Refusal::Handshakes)?)));
        let (peer, handshake) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                debug!(%address, reason = refusal.as_str(), "refused a connection");
                state.metrics.count_refused_connection(refusal);
                continue;
            }
        };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        workers.spawn(move || async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, peer, acceptor, handshake, state).await,
                Err(error) => warn!(%error, "failed to hand a connection to its worker thread"),
            }
        });
    }
}

fn bound_buffers(listener: &TcpListener) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_recv_buffer_size(listener, SOCKET_BUFFER)?;
    rustix::net::sockopt::set_socket_send_buffer_size(listener, SOCKET_BUFFER)?;
    Ok(())
}

/// Accepts the next connection and detaches its socket from this runtime.
async fn accept_next(listener: &TcpListener) -> std::io::Result<(std::net::TcpStream, IpAddr)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let send_timeout = u32::try_from(SEND_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, send_timeout)?;
    Ok((stream.into_std()?, peer.ip()))
}

async fn serve(
    stream: TcpStream,
    peer: Arc<Peer>,
    acceptor: Option<TlsAcceptor>,
    handshake: AddressSlot,
    state: Arc<State>,
) {
    let stream = Metered::new(stream, Arc::clone(&peer));
    let Some(acceptor) = acceptor else {
        drop(handshake);
        return serve_connection(stream, peer, state).await;
    };
    let secured = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    drop(handshake);
    peer.claim_input();
    match secured {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => match peer.upgrade_to_http2() {
            Ok(()) => serve_h2(stream, peer, state).await,
            Err(full) => {
                debug!(%full, peer = %peer.address, "refused an HTTP/2 connection");
                state.metrics.count_refused_connection(full.into());
            }
        },
        Ok(Ok(stream)) => serve_connection(stream, peer, state).await,
        Ok(Err(error)) => debug!(%error, peer = %peer.address, "a TLS handshake failed"),
        Err(_) => debug!(peer = %peer.address, "a TLS handshake took too long"),
    }
}
