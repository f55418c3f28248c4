//! Accepts TCP connections, performs TLS handshakes and serves HTTP/2, each connection in its own task so that a slow one does
//! not delay others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use mcp_fleet_control::wire::control_server::{Control, ControlServer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of concurrent handshakes; further connections wait in the kernel.
const MAX_HANDSHAKES: usize = 64;
/// Maximum number of streams on a connection. A gateway has one.
const MAX_STREAMS: u32 = 4;
/// How long a connection may be silent before it gets a keep-alive ping, and how long the response may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long open streams may take to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves connections until `stop`, and then waits until the streams on them have ended, but not for long.
pub(super) async fn serve<C: Control>(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    service: ControlServer<C>,
    stop: CancellationToken,
) {
    let (acceptor, permits) = (TlsAcceptor::from(config), Arc::new(Semaphore::new(MAX_HANDSHAKES)));
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely there are no file descriptors left, so other connections must close first.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, service, watcher) = (acceptor.clone(), service.clone(), connections.watcher());
        let stop = stop.clone();
        tokio::spawn(async move {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                stream = handshake(&acceptor, stream) => stream,
            };
            drop(permit);
            if let Some(stream) = stream {
                serve_connection(stream, service, watcher).await;
            }
        });
    }
    drop(listener);
    // A peer that has not begun to speak HTTP/2 never ends by itself.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.shutdown()).await;
}

/// Accepts a connection once there is a place for its handshake.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
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
    http2.max_concurrent_streams(MAX_STREAMS);
    let connection = http2.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "the connection of a gateway ended");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use mcp_fleet_control::wire::{FromGateway, FromOperator};
    use tokio::time::Instant;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::{Request, Response, Status, Streaming};

    use super::super::tls::server_config;
    use super::*;
    use crate::credentials::ca::Authority;

    struct Refuses;

    #[tonic::async_trait]
    impl Control for Refuses {
        type ConnectStream = ReceiverStream<Result<FromOperator, Status>>;

        async fn connect(&self, _: Request<Streaming<FromGateway>>) -> Result<Response<Self::ConnectStream>, Status> {
            Err(Status::unavailable("a test"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_say_nothing_do_not_hold_up_the_end() {
        let (certificate, key) = Authority::generate(jiff::Timestamp::now()).unwrap();
        let authority = Authority::from_pem(&certificate, &key).unwrap();
        let tls = server_config(&authority, vec!["operator.example".to_owned()]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(serve(listener, tls, ControlServer::new(Refuses), stop.clone()));
        // The kernel accepts them. More than may do their handshake at a time.
        let silent: Vec<_> = (0..MAX_HANDSHAKES + 8).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for _ in 0..4 * silent.len() {
            tokio::task::yield_now().await;
        }
        let stopped = Instant::now();
        stop.cancel();
        served.await.unwrap();
        assert_eq!(stopped.elapsed(), Duration::ZERO, "no handshake is waited for");
    }
}
