//! `/healthz`, `/readyz` and `/metrics`, plain HTTP, on every replica: a follower is Ready too, or a rollout would wait
//! for ever.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

/// Whether the stores are filled: set once.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on `/readyz` answers 200.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was set.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Serves until `stop`.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    ready: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a health connection");
                    continue;
                }
            },
        };
        let (metrics, ready) = (metrics.clone(), ready.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &metrics, &ready);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
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
