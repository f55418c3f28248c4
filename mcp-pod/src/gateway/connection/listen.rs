//! The gateway's socket: TLS for every connection, and a bound on how many there are.

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

/// Connections at one time, and those of one address among them.
const CONNECTIONS: usize = 4096;
const CONNECTIONS_OF_ONE: u32 = 1024;
/// TLS handshakes of one address at one time: each costs a signature, and whoever asks for one is still a stranger.
const HANDSHAKES_OF_ONE: u32 = 64;
/// How long a client may leave what was sent to it untaken (tcp(7), `TCP_USER_TIMEOUT`): with a closed window as well,
/// so one that stops reading does not keep its connection.
const UNTAKEN: Duration = Duration::from_secs(60);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts connections until the gateway closes; then the ones it has end by themselves.
pub async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, workers: Workers, state: Arc<State>) {
    accept(listener, Some(TlsAcceptor::from(tls)), workers, state).await;
}

/// The same without TLS: for the bench, which compares with others that have none. The product has no way to it.
pub async fn listen_plain(listener: TcpListener, workers: Workers, state: Arc<State>) {
    accept(listener, None, workers, state).await;
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, workers: Workers, state: Arc<State>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let (shares, handshakes) = (AddressLimit::new(CONNECTIONS_OF_ONE), AddressLimit::new(HANDSHAKES_OF_ONE));
    let closing = state.closing();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = next(&listener, &connections) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: others may end meanwhile.
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (Some(share), Some(handshake)) = (shares.take(peer), handshakes.take(peer)) else {
            debug!(%peer, "an address has too many connections");
            continue;
        };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        workers.spawn(move || async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream, peer, acceptor, handshake, state).await,
                Err(error) => warn!(%error, "failed to take a connection over"),
            }
            drop((share, place));
        });
    }
}

/// The next connection, once there is a place for it. Its socket is let go of by this runtime.
async fn next(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(std::net::TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(connections).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let untaken = u32::try_from(UNTAKEN.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, untaken)?;
    Ok((stream.into_std()?, peer.ip(), place))
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
    let secured = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    drop(handshake);
    match secured {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => serve_h2(stream, peer, state).await,
        Ok(Ok(stream)) => serve_connection(stream, peer, state).await,
        Ok(Err(error)) => debug!(%error, %peer, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
}
