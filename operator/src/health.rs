//! `/healthz`, `/readyz` and `/metrics`, plain HTTP, on every replica: a follower is Ready too, or a rollout would wait
//! for ever.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// How long a connection may take to send a request's head, or to rest before the next.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after a failure to accept: it may be for want of file descriptors, which do not come back at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the stores are filled: set once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on `/readyz` answers 200.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was set.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    ready: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            place = Arc::clone(&room).acquire_owned() => place.map_err(std::io::Error::other)?,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a health connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (metrics, ready) = (metrics.clone(), ready.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &metrics, &ready);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let served = http.serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                tracing::debug!(error = %error, "a health connection broke");
            }
        });
    }
}

fn answer(path: &str, metrics: &Metrics, ready: &Readiness) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        "/healthz" => (StatusCode::OK, Bytes::from_static(b"ok\n")),
        "/readyz" if ready.get() => (StatusCode::OK, Bytes::from_static(b"ok\n")),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"the watches have not been filled yet\n")),
        "/metrics" => match metrics.render() {
            Ok(text) => (StatusCode::OK, Bytes::from(text)),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(error.to_string())),
        },
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"try /healthz, /readyz or /metrics\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_ready_only_once_its_stores_are_filled() {
        let (metrics, ready) = (Metrics::new().unwrap(), Readiness::default());
        assert_eq!(answer("/readyz", &metrics, &ready).status(), StatusCode::SERVICE_UNAVAILABLE);
        ready.set();
        assert_eq!(answer("/readyz", &metrics, &ready).status(), StatusCode::OK);
    }

    #[test]
    fn metrics_are_served_in_text_form() {
        let (metrics, ready) = (Metrics::new().unwrap(), Readiness::default());
        metrics.reconciles.with_label_values(&["tenant", "ok"]).inc();
        assert_eq!(answer("/metrics", &metrics, &ready).status(), StatusCode::OK);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(text.contains("mcp_fleet_reconciles_total{controller=\"tenant\",outcome=\"ok\"} 1"), "{text}");
    }
}
