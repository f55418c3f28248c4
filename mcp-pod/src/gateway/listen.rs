//! The gateway's socket: TLS for every connection, and a bound on how many there are.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::quota::{Quota, Share};
use super::serve::{serve_connection, serve_h2};
use super::state::State;

/// Connections at one time, and those of one address among them.
const CONNECTIONS: usize = 4096;
const CONNECTIONS_OF_ONE: u32 = 1024;
/// TLS handshakes of one address at one time: each costs a signature, and whoever asks for one is still a stranger.
const HANDSHAKES_OF_ONE: u32 = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts connections until the gateway closes; then the ones it has end by themselves.
pub async fn listen(listener: TcpListener, tls: Arc<ServerConfig>, state: Arc<State>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let (shares, handshakes) = (Quota::new(CONNECTIONS_OF_ONE), Quota::new(HANDSHAKES_OF_ONE));
    let acceptor = TlsAcceptor::from(tls);
    let closing = state.closing();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accept(&listener, &connections) => accepted,
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
        let peer = peer.ip();
        let (Some(share), Some(handshake)) = (shares.take(peer), handshakes.take(peer)) else {
            debug!(%peer, "an address has too many connections");
            continue;
        };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            secure(stream, peer, &acceptor, handshake, state).await;
            drop((share, place));
        });
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(connections).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

async fn secure(stream: TcpStream, peer: IpAddr, acceptor: &TlsAcceptor, handshake: Share, state: Arc<State>) {
    let secured = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    drop(handshake);
    match secured {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => serve_h2(stream, peer, state).await,
        Ok(Ok(stream)) => serve_connection(stream, peer, state).await,
        Ok(Err(error)) => debug!(%error, %peer, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
}
