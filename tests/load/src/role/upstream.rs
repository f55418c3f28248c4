//! The tool server of all paths. It reads the whole request and answers with fixed bytes of about the same size, so
//! that a direct call (`/echo/mcp`) costs it as much as a call from the gateway (`/v1/call`).

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcp_pod::envelope::{CALL_PATH, EPOCH_HEADER, MEDIA_TYPE, SERVER_PATH, VERSION};
use mcp_pod::tls::{Identity, server_config_mutual, server_config_plain};

use super::announce;
use super::listen::{Stream, listen};
use crate::load::{LARGE, SMALL, message};
use crate::setup::{Addresses, TOOL, gateway_identity};

/// The fixed answers: the report of a shim, and results of small and of large calls.
#[derive(Clone, Debug)]
struct Answers {
    report: Bytes,
    direct: [Bytes; 2],
    shim: [Bytes; 2],
}

/// Serves until the process is killed.
pub(super) async fn serve(tls: &Path) -> anyhow::Result<()> {
    let identity = Identity::load(tls)?;
    let answers = Answers::new()?;
    let handler = move |stream: Box<dyn Stream>, _| connection(stream, answers.clone());
    let plain = listen(None, handler.clone()).await?;
    let tls = listen(Some(server_config_plain(identity.clone())?), handler.clone()).await?;
    let mutual = listen(Some(server_config_mutual(identity, &gateway_identity())?), handler).await?;
    announce(&Addresses { plain, tls, mutual })?;
    std::future::pending().await
}

impl Answers {
    fn new() -> anyhow::Result<Self> {
        let result = |size: usize| message::result(size);
        let direct = |size| Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}}}"#, result(size)));
        let shim = |size| Bytes::from(format!("{{\"result\":{}}}\n", result(size)));
        let schema = serde_json::json!({
            "type": "object",
            "properties": {"text": {"type": "string"}, "mode": {"type": "string"}, "count": {"type": "integer"}},
        });
        let report = serde_json::json!({
            "version": VERSION,
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo", "version": "1"},
            },
            "tools": [{"name": TOOL, "description": "Repeats the text.", "inputSchema": schema}],
        });
        Ok(Self {
            report: serde_json::to_vec(&report)?.into(),
            direct: [direct(SMALL), direct(LARGE)],
            shim: [shim(SMALL), shim(LARGE)],
        })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST) };
        let body = body.to_bytes();
        if body.len() < 2 * SMALL + 512 && memchr::memmem::find(&body, message::SILENT).is_some() {
            return std::future::pending().await;
        }
        let large = usize::from(body.len() > LARGE);
        let (media, bytes) = match head.uri.path() {
            SERVER_PATH => ("application/json", &self.report),
            CALL_PATH => (MEDIA_TYPE, &self.shim[large]),
            message::PATH => ("application/json", &self.direct[large]),
            _ => return status(StatusCode::NOT_FOUND),
        };
        let mut response = Response::new(Full::new(bytes.clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response.headers_mut().insert(EPOCH_HEADER, HeaderValue::from_static("1"));
        response
    }
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = code;
    response
}

async fn connection(stream: Box<dyn Stream>, answers: Answers) {
    let service = service_fn(move |request| {
        let answers = answers.clone();
        async move { Ok::<_, Infallible>(answers.answer(request).await) }
    });
    // An error here only means that the client has closed the connection.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}
