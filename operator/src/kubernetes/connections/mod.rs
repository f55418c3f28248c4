//! Which connection a request to the API server takes.
//!
//! kube's client uses HTTP/1.1, with a connection for each request under way. The operator watches the Secrets of each
//! namespace of a tenant, so a fleet of a thousand tenants would have two thousand connections, all of which a new leader
//! opens at once. Therefore watches share connections of HTTP/2. The Lease has connections of its own, so that it is
//! renewed in time when all others are busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt as _, DynBody};
use kube::{Client, Config};
use parking_lot::Mutex;
use tower::{BoxError, Layer, Service, ServiceBuilder};

use super::requests::is_watch;

/// Watches on one connection. A Kubernetes API server allows at least 100 streams on a connection; one more would wait
/// until another ends.
const MAX_WATCHES: u32 = 64;
/// Bytes of one watch that may arrive before they are read.
const WATCH_WINDOW: u32 = 64 * 1024;
/// Bytes of all watches of a connection that may arrive before they are read: those of each watch, so that one that is read
/// slowly does not delay the others.
const CONNECTION_WINDOW: u32 = MAX_WATCHES * WATCH_WINDOW;
/// How often a connection with quiet watches is checked, and how long the API server may take to answer. kube's watcher
/// notices a dead connection only after minutes.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

type Answer = Response<Box<DynBody>>;

/// Sends the Lease's requests and watches over connections of their own.
pub(super) struct ConnectionsLayer {
    lease: Client,
    watches: Client,
}

impl ConnectionsLayer {
    /// Returns a layer that connects to the API server of `config`.
    pub(super) fn new(config: &Config) -> Result<Self, kube::Error> {
        let lease = ClientBuilder::try_from(config.clone())?.build();
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .map_err(BoxError::from)
            .service(Watches::new(config)?);
        let watches = ClientBuilder::new(service, config.default_namespace.clone()).build();
        Ok(Self { lease, watches })
    }
}

impl<S> Layer<S> for ConnectionsLayer {
    type Service = Connections<S>;

    fn layer(&self, inner: S) -> Connections<S> {
        Connections { inner, lease: self.lease.clone(), watches: self.watches.clone() }
    }
}

/// A client that chooses a connection for each request; `inner` gets those that need no particular one.
pub(super) struct Connections<S> {
    inner: S,
    lease: Client,
    watches: Client,
}

impl<S> Service<Request<Body>> for Connections<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = if is_watch(request.uri()) {
            &self.watches
        } else if is_lease(request.uri().path()) {
            &self.lease
        } else {
            return self.inner.call(request).boxed();
        };
        let client = client.clone();
        async move {
            let answer = client.send(request).await?;
            Ok(answer.map(|body| Box::new(body.map_err(BoxError::from)) as Box<DynBody>))
        }
        .boxed()
    }
}

fn is_lease(path: &str) -> bool {
    path.starts_with("/apis/coordination.k8s.io/")
}

/// Connections of HTTP/2, each with at most [`MAX_WATCHES`] watches. An API server behind a proxy that speaks only HTTP/1.1
/// gets a connection for each watch.
#[derive(Clone)]
struct Watches {
    connector: HttpsConnector<HttpConnector>,
    connections: Arc<Mutex<Vec<Connection>>>,
}

/// A connection, opened when it is needed.
struct Connection {
    client: HttpClient<HttpsConnector<HttpConnector>, Body>,
    watches: Arc<AtomicU32>,
}

/// The place of a watch on its connection, which is free again when this is dropped.
struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watches {
    fn new(config: &Config) -> Result<Self, kube::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(config.connect_timeout);
        let mut tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
        // The other client already failed if the name is malformed.
        if let Some(name) = config.tls_server_name.clone().and_then(|name| name.try_into().ok()) {
            tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let connector = tls.enable_all_versions().wrap_connector(http);
        Ok(Self { connector, connections: Arc::default() })
    }

    /// Returns a connection that has a free place, and the place.
    fn connection(&self) -> (HttpClient<HttpsConnector<HttpConnector>, Body>, Place) {
        let mut connections = self.connections.lock();
        // Places are taken under the lock only.
        let free = connections.iter().position(|it| it.watches.load(Ordering::Relaxed) < MAX_WATCHES);
        let position = free.unwrap_or_else(|| {
            connections.push(Connection { client: self.client(), watches: Arc::default() });
            connections.len() - 1
        });
        let Connection { client, watches } = &connections[position];
        watches.fetch_add(1, Ordering::Relaxed);
        (client.clone(), Place(Arc::clone(watches)))
    }

    fn client(&self) -> HttpClient<HttpsConnector<HttpConnector>, Body> {
        HttpClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_initial_stream_window_size(WATCH_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING.0)
            .http2_keep_alive_timeout(PING.1)
            .build(self.connector.clone())
    }
}

impl Service<Request<Body>> for Watches {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, place) = self.connection();
        async move {
            let (head, body) = client.request(request).await?.into_parts();
            let body = body.map_err(BoxError::from).map_frame(move |frame| {
                let _place = &place;
                frame
            });
            Ok(Response::from_parts(head, Box::new(body) as Box<DynBody>))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
