//! `/healthz`, `/readyz` and `/metrics` over plain HTTP, the same in the operator, the gateway and the shim.
//!
//! The port has no TLS and no authentication: a NetworkPolicy decides who reaches it. What a peer can hold is bounded
//! too: [`MAX_CONNECTIONS`] at a time, one request each, [`CONNECTION_TIMEOUT`] for all of it.

mod listen;
mod respond;
#[cfg(feature = "testing")]
pub mod testing;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use listen::listen;

/// Connections served at a time: the kubelet, a scraper, and room for a few people.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a connection may last. It serves one request.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept. It usually means that file descriptors ran out, and some have to be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Checks one aspect of the process. The error says in one line what is wrong; it becomes the body of a 503.
pub type Probe = Box<dyn Fn() -> Result<(), Cow<'static, str>> + Send + Sync>;

/// The probes and metrics of one process.
pub struct Admin {
    /// Liveness, at `/healthz`. A failure makes the kubelet restart the container.
    pub alive: Probe,
    /// Readiness, at `/readyz`. A failure takes the pod out of its Service.
    pub ready: Probe,
    /// Metrics, at `/metrics`, in the Prometheus text format 0.0.4.
    pub registry: Registry,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// Serves the endpoints on `listener` until `stop` is cancelled.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let admin = Arc::new(admin);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let admin = Arc::clone(&admin);
                    tokio::spawn(async move {
                        serve_connection(stream, &admin).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    warn!(%error, "failed to accept a connection for health or metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop.cancelled() => {}
    }
}

async fn serve_connection(stream: TcpStream, admin: &Admin) {
    let service = service_fn(|request: http::Request<Incoming>| {
        let response = admin.respond(request.method(), request.uri().path());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for health or metrics failed"),
        Err(_) => debug!("a connection for health or metrics took too long"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn admin() -> Admin {
        Admin { alive: Box::new(|| Ok(())), ready: Box::new(|| Err("starting".into())), registry: Registry::new() }
    }

    #[tokio::test]
    async fn idle_connections_do_not_keep_probes_out_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, admin(), stop.clone()));
        let mut idle = vec![];
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /healthz HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
        // Closes the idle connections without waiting for the real time-out.
        tokio::time::pause();
        tokio::time::advance(CONNECTION_TIMEOUT).await;
        tokio::time::resume();
        let mut response = String::new();
        let read = probe.read_to_string(&mut response);
        tokio::time::timeout(2 * CONNECTION_TIMEOUT, read).await.expect("the probe got no answer").unwrap();
        assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("ok\n"), "{response}");
        stop.cancel();
        server.await.unwrap();
    }
}
