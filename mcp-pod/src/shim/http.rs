//! The two listeners: calls over mutual TLS, health and metrics in the clear.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::call::{Events, call};
use super::metrics::Metrics;
use super::server::Supervisor;
use crate::envelope::{CALL_PATH, EPOCH_HEADER, MEDIA_TYPE, SERVER_PATH};

/// Connections at a time: each call in flight has one of its own. The gateway has smaller limits, per server.
const CONNECTIONS: usize = 4096;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Largest call in bytes: the largest `maxRequestSize`, the header line, and what its paths repeat.
const MAX_BODY: usize = 20 << 20;
const BODY: Duration = Duration::from_secs(30);

type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// What handlers need.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) metrics: Arc<Metrics>,
}

/// Who is spoken to on a listener.
#[derive(Clone)]
pub(super) enum Door {
    /// The gateway, once it has shown its certificate.
    Calls(TlsAcceptor),
    /// Probes and Prometheus.
    Health,
}

/// Takes connections until `stop`, then lets those that are answering end.
pub(super) async fn serve(listener: TcpListener, door: Door, context: Arc<Context>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: give those in use time to be closed.
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (door, context, stop) = (door.clone(), Arc::clone(&context), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, door, context, stop).await {
                let error: &dyn std::error::Error = &*error;
                debug!(error, "a connection ended");
            }
            drop(permit);
        });
    }
    connections.close();
    // Answers have been given by now; what is left is a peer that does not close.
    let _ = timeout(Duration::from_secs(1), connections.wait()).await;
}

async fn connection(
    stream: TcpStream,
    door: Door,
    context: Arc<Context>,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    match door {
        Door::Calls(acceptor) => {
            let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(io::Error::other)??;
            let service = service_fn(move |request| {
                let context = Arc::clone(&context);
                async move { Ok::<_, Infallible>(calls(&context, request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => ended?,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await?;
                }
            }
        }
        Door::Health => {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = health(&context, request.uri().path());
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            timeout(BODY, connection).await??;
        }
    }
    Ok(())
}

async fn calls(context: &Context, request: Request<Incoming>) -> Response<Body> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, SERVER_PATH) => {
            let status = context.supervisor.status();
            match &status.ready {
                Some(ready) => typed(StatusCode::OK, "application/json", Either::Left(ready.report.clone().into())),
                None => text(StatusCode::SERVICE_UNAVAILABLE, status.message.clone()),
            }
        }
        (&Method::POST, CALL_PATH) => {
            let body = Limited::new(request.into_body(), MAX_BODY).collect();
            match timeout(BODY, body).await {
                Ok(Ok(body)) => match call(&context.supervisor, &context.metrics, body.to_bytes()).await {
                    Ok(Events::Complete(events)) => typed(StatusCode::OK, MEDIA_TYPE, Either::Left(events.into())),
                    Ok(Events::Streaming(events)) => typed(StatusCode::OK, MEDIA_TYPE, Either::Right(events)),
                    Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
                },
                Ok(Err(error)) => text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
                Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()),
            }
        }
        (_, SERVER_PATH | CALL_PATH) => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => text(StatusCode::NOT_FOUND, String::new()),
    };
    response.headers_mut().insert(EPOCH_HEADER, context.supervisor.status().epoch.into());
    response
}

fn health(context: &Context, path: &str) -> Response<Body> {
    match path {
        // That it answers at all is the proof: everything runs on this one thread.
        "/healthz" => text(StatusCode::OK, "ok".to_owned()),
        "/readyz" => {
            let status = context.supervisor.status();
            match status.ready {
                Some(_) => text(StatusCode::OK, "ok".to_owned()),
                None => text(StatusCode::SERVICE_UNAVAILABLE, status.message.clone()),
            }
        }
        "/metrics" => match context.metrics.render() {
            Ok(metrics) => typed(StatusCode::OK, prometheus::TEXT_FORMAT, Either::Left(Bytes::from(metrics).into())),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => text(StatusCode::NOT_FOUND, String::new()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", Either::Left(Bytes::from(text).into()))
}

fn typed(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
