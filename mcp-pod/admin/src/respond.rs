//! The response to each path.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use prometheus::{Encoder as _, TEXT_FORMAT, TextEncoder};

use crate::{Admin, Probe};

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

impl Admin {
    /// Returns the response to a request with that method and path.
    pub(crate) fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed");
        }
        match path {
            "/healthz" => probe(&self.alive),
            "/readyz" => probe(&self.ready),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut rendered = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut rendered) {
            Ok(()) => response(StatusCode::OK, TEXT_FORMAT, rendered.into()),
            Err(error) => {
                tracing::error!(%error, "failed to render metrics");
                text(StatusCode::INTERNAL_SERVER_ERROR, "failed to render metrics")
            }
        }
    }
}

fn probe(probe: &Probe) -> Response<Full<Bytes>> {
    match probe() {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(problem) => text(StatusCode::SERVICE_UNAVAILABLE, problem),
    }
}

fn text(status: StatusCode, line: impl Into<Cow<'static, str>>) -> Response<Full<Bytes>> {
    response(status, PLAIN_TEXT, format!("{}\n", line.into()).into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prometheus::{IntCounter, Registry};

    use super::*;

    async fn get(admin: &Admin, path: &str) -> (StatusCode, String) {
        let response = admin.respond(&Method::GET, path);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn admin(ready: Result<(), &'static str>) -> Admin {
        let registry = Registry::new();
        let counter = IntCounter::new("calls_total", "Calls").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc();
        Admin { alive: Box::new(|| Ok(())), ready: Box::new(move || ready.map_err(Cow::Borrowed)), registry }
    }

    #[tokio::test]
    async fn a_failed_probe_says_what_is_wrong() {
        let unready = admin(Err("no policy yet"));
        assert_eq!(get(&unready, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "no policy yet\n".to_owned()));
        assert_eq!(get(&unready, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(get(&admin(Ok(())), "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_served_in_the_text_format() {
        let admin = admin(Ok(()));
        let response = admin.respond(&Method::GET, "/metrics");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; version=0.0.4");
        assert!(get(&admin, "/metrics").await.1.contains("calls_total 1"));
    }

    #[test]
    fn other_methods_and_paths_are_refused() {
        let admin = admin(Ok(()));
        assert_eq!(admin.respond(&Method::POST, "/metrics").status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(admin.respond(&Method::GET, "/debug").status(), StatusCode::NOT_FOUND);
    }
}
