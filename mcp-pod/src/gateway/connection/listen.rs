//! The gateway's listening socket: accepts connections, does the TLS handshake, and bounds how many there are.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::address_limit::{AddressLimit, AddressSlot};
use super::serve::{serve_connection, serve_h2};
use crate::gateway::state::State;
use crate::gateway::workers::Workers;

/// Open connections.
const MAX_CONNECTIONS: usize = 4096;
/// Open connections of one address.
const MAX_CONNECTIONS_PER_ADDRESS: u32 = 1024;
/// Concurrent TLS handshakes of one address: each costs a signature, and the client is not authenticated yet.
const MAX_HANDSHAKES_PER_ADDRESS: u32 = 64;
/// Longest time that sent data may stay unacknowledged (tcp(7), `TCP_USER_TIMEOUT`). Also applies while the client's
/// window is closed, so a client that stops reading does not keep its connection.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time that a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts connections until the gateway closes. Open connections then end by themselves.
pub async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, workers: Workers, state: Arc<State>) {
    accept(listener, Some(TlsAcceptor::from(tls)), workers, state).await;
}

/// Accepts connections without TLS: for the load test only, which compares with gateways that have none.
pub async fn listen_plain(listener: TcpListener, workers: Workers, state: Arc<State>) {
    accept(listener, None, workers, state).await;
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, workers: Workers, state: Arc<State>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let per_address = AddressLimit::new(MAX_CONNECTIONS_PER_ADDRESS);
    let handshakes = AddressLimit::new(MAX_HANDSHAKES_PER_ADDRESS);
    let closing = state.closing();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accept_next(&listener, &connections) => accepted,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually there are no file descriptors left, and other connections may end meanwhile.
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (Some(slot), Some(handshake)) = (per_address.take(peer), handshakes.take(peer)) else {
            debug!(%peer, "an address has too many connections or handshakes");
            continue;
        };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        workers.spawn(move || async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, peer, acceptor, handshake, state).await,
                Err(error) => warn!(%error, "failed to hand a connection to its worker thread"),
            }
            drop((slot, permit));
        });
    }
}

/// Accepts the next connection, once fewer than [`MAX_CONNECTIONS`] are open. Detaches its socket from this runtime.
async fn accept_next(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(std::net::TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let send_timeout = u32::try_from(SEND_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, send_timeout)?;
    Ok((stream.into_std()?, peer.ip(), permit))
}

async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    acceptor: Option<TlsAcceptor>,
    handshake: AddressSlot,
    state: Arc<State>,
) {
    let Some(acceptor) = acceptor else {
        drop(handshake);
        return serve_connection(stream, peer, state).await;
    };
    let secured = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    drop(handshake);
    match secured {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => serve_h2(stream, peer, state).await,
        Ok(Ok(stream)) => serve_connection(stream, peer, state).await,
        Ok(Err(error)) => debug!(%error, %peer, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
}
