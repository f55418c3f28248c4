//! The listener for calls, over mutual TLS.

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
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::call::{CallsInFlight, Events, call};
use super::metrics::Metrics;
use super::server::Supervisor;
use crate::envelope::{CALL_PATH, CANCEL_PATH, EPOCH_HEADER, MEDIA_TYPE, SERVER_PATH};

/// Connections served at a time. Each call in flight needs one. The gateway has a lower limit for each server.
const MAX_CONNECTIONS: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest call in bytes: the largest `maxRequestSize`, the header line, and the paths, which are repeated in it.
const MAX_BODY: usize = 20 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept. It usually means that file descriptors ran out, and some have to be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may stay open after the last response.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Infallible>>;

/// What a request needs.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) calls: Arc<CallsInFlight>,
}

/// Serves calls until `stop`, then finishes the responses that have begun.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    context: Arc<Context>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "failed to accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, context, stop) = (acceptor.clone(), Arc::clone(&context), stop.clone());
        connections.spawn(async move {
            if let Err(error) = serve_connection(stream, acceptor, context, stop).await {
                let error: &dyn std::error::Error = &*error;
                debug!(error, "a connection failed");
            }
            drop(slot);
        });
    }
    connections.close();
    // The server has ended by now, and all calls with it. Only peers that do not close their connection are left.
    let _ = timeout(CLOSE_TIMEOUT, connections.wait()).await;
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    context: Arc<Context>,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.map_err(io::Error::other)??;
    let service = service_fn(move |request| {
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(respond(&context, request).await) }
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
    Ok(())
}

async fn respond(context: &Context, request: Request<Incoming>) -> Response<Body> {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, SERVER_PATH) => report(&context.supervisor),
        (&Method::POST, CALL_PATH) => match timeout(BODY_TIMEOUT, read_body(request)).await {
            Ok(Ok(body)) => match call(&context.supervisor, &context.metrics, &context.calls, body).await {
                Ok(Events::Complete(events)) => typed(StatusCode::OK, MEDIA_TYPE, Either::Left(events.into())),
                Ok(Events::Streaming(events)) => typed(StatusCode::OK, MEDIA_TYPE, Either::Right(events)),
                Err(rejection) => text(StatusCode::BAD_REQUEST, rejection.to_string()),
            },
            Ok(Err(error)) => text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            Err(_) => text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()),
        },
        (&Method::POST, CANCEL_PATH) => match timeout(BODY_TIMEOUT, read_body(request)).await {
            Ok(Ok(body)) => cancel(&context.calls, &body),
            _ => text(StatusCode::BAD_REQUEST, String::new()),
        },
        (_, SERVER_PATH | CALL_PATH | CANCEL_PATH) => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => text(StatusCode::NOT_FOUND, String::new()),
    };
    response.headers_mut().insert(EPOCH_HEADER, context.supervisor.status().epoch.into());
    response
}

fn report(supervisor: &Supervisor) -> Response<Body> {
    let status = supervisor.status();
    match status.ready.as_ref().map(|ready| &ready.report).or(status.idle.as_ref()) {
        Some(report) => typed(StatusCode::OK, "application/json", Either::Left(report.clone().into())),
        None => text(StatusCode::SERVICE_UNAVAILABLE, status.message.clone()),
    }
}

fn cancel(calls: &CallsInFlight, call: &[u8]) -> Response<Body> {
    let in_flight = std::str::from_utf8(call).is_ok_and(|call| calls.cancel(call));
    text(if in_flight { StatusCode::NO_CONTENT } else { StatusCode::CONFLICT }, String::new())
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Limited::new(request.into_body(), MAX_BODY).collect().await?.to_bytes())
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
