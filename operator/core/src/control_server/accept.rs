//! Accepts TCP connections, performs TLS handshakes and serves HTTP/2, each connection in its own task so that a slow one does
//! not delay others.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use mcp_fleet_control::wire::control_server::{Control, ControlServer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of concurrent handshakes; further connections wait in the kernel.
const MAX_HANDSHAKES: usize = 64;
/// How long a connection may be silent before it gets a keep-alive ping, and how long the response may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Serves connections until `stop`, and then waits until the streams on them have ended.
pub(super) async fn serve<C: Control>(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    service: ControlServer<C>,
    stop: CancellationToken,
) {
    let (acceptor, permits) = (TlsAcceptor::from(config), Arc::new(Semaphore::new(MAX_HANDSHAKES)));
    let connections = GracefulShutdown::new();
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most likely there are no file descriptors left, so other connections must close first.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, service, watcher) = (acceptor.clone(), service.clone(), connections.watcher());
        tokio::spawn(async move {
            let stream = handshake(&acceptor, stream).await;
            drop(permit);
            if let Some(stream) = stream {
                serve_connection(stream, service, watcher).await;
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Returns the connection after its TLS handshake; none if that fails.
async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    // Messages are small, and the peer waits for each of them.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake timed out"),
    }
    None
}

async fn serve_connection<C: Control>(stream: TlsStream<TcpStream>, service: ControlServer<C>, watcher: Watcher) {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    let connection = http2.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "the connection of a gateway ended");
    }
}
