//! A time limit for every call to the API server.
//!
//! kube's `read_timeout` would also end watches that are only quiet, so the limit is a layer that distinguishes them.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, DynBody};
use tower::{BoxError, Layer, Service};

use super::requests::is_watch;
use super::timeout::too_late;

/// How long a call may take, with its retries. For a watch: until the API server has accepted it. kube's watcher itself
/// ends a watch that is silent for too long.
///
/// A call that takes longer may still have its effect.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Gives every call a time limit.
pub(super) struct TimeLimitLayer;

impl<S> Layer<S> for TimeLimitLayer {
    type Service = TimeLimit<S>;

    fn layer(&self, inner: S) -> TimeLimit<S> {
        TimeLimit(inner)
    }
}

/// A service whose calls have a time limit.
pub(super) struct TimeLimit<S>(S);

impl<S> Service<Request<Body>> for TimeLimit<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_watch = is_watch(request.uri());
        let response = self.0.call(request);
        let call = async move {
            let response = response.await?;
            if is_watch {
                return Ok(response);
            }
            // The client decodes no other body before it has all of it, so it may just as well be read here.
            let (head, body) = response.into_parts();
            let body = Full::new(body.collect().await?.to_bytes()).map_err(BoxError::from);
            Ok(Response::from_parts(head, Box::new(body) as Box<DynBody>))
        };
        async move { tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(too_late().into())) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures::{StreamExt as _, TryStreamExt as _};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{ListParams, WatchEvent, WatchParams};
    use kube::{Api, Client};
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    /// Returns a client whose requests get this response.
    fn client_of<F, R>(respond: F) -> Client
    where
        F: Fn() -> R + Clone + Send + 'static,
        R: Future<Output = Box<DynBody>> + Send + 'static,
    {
        let service = tower::service_fn(move |_: Request<Body>| {
            let respond = respond.clone();
            async move { Ok::<_, BoxError>(Response::new(respond().await)) }
        });
        Client::new(TimeLimitLayer.layer(service), "default")
    }

    fn stream(frames: impl futures::Stream<Item = Bytes> + Send + Unpin + 'static) -> Box<DynBody> {
        let frames = frames.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        Box::new(http_body_util::BodyExt::map_err(StreamBody::new(frames), BoxError::from))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_fails_in_time() {
        let client = client_of(std::future::pending);
        let started = Instant::now();
        let found = Api::<ConfigMap>::default_namespaced(client).list(&ListParams::default()).await;
        assert!(matches!(found, Err(kube::Error::Service(_))), "{found:?}");
        assert_eq!(started.elapsed().as_secs(), CALL_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_answer_stops_in_the_middle_fails_in_time() {
        let client = client_of(|| async {
            stream(futures::stream::iter([Bytes::from_static(b"{\"items\": [")]).chain(futures::stream::pending()))
        });
        let started = Instant::now();
        let found = Api::<ConfigMap>::default_namespaced(client).list(&ListParams::default()).await;
        assert!(matches!(found, Err(kube::Error::Service(_))), "{found:?}");
        assert_eq!(started.elapsed().as_secs(), CALL_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_watch_stays_open_but_must_be_accepted_in_time() {
        let event =
            json!({"type": "ADDED", "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}});
        let client = client_of(move || {
            let line = Bytes::from(format!("{event}\n"));
            let late = futures::stream::once(async move {
                tokio::time::sleep(CALL_TIMEOUT * 10).await;
                line
            });
            async move { stream(late.boxed()) }
        });
        let configs: Api<ConfigMap> = Api::default_namespaced(client);
        let mut events = configs.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        assert!(matches!(events.try_next().await, Ok(Some(WatchEvent::Added(_)))));
        let configs: Api<ConfigMap> = Api::default_namespaced(client_of(std::future::pending));
        assert!(configs.watch(&WatchParams::default(), "0").await.is_err());
    }
}
