//! A proxy that forwards requests and answers unchecked: the minimum cost of a hop built with hyper and rustls. Each
//! client connection has its own connection to the upstream.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcp_pod::tls::{Identity, client_config, peer_name, server_config_plain};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::listen::{Stream, listen};
use super::{Fronts, announce};
use crate::setup::server_identity;

/// Serves until the process is killed.
pub(super) async fn serve(tls: &Path, plain: SocketAddr, mutual: SocketAddr) -> anyhow::Result<()> {
    let identity = Identity::load(tls)?;
    let upstream_tls = client_config(identity.clone(), &server_identity())?;
    let fronts = Fronts {
        plain: listen(None, move |stream, _| connection(stream, plain, None)).await?,
        tls: listen(Some(server_config_plain(identity)?), move |stream, _| {
            connection(stream, mutual, Some(upstream_tls.clone()))
        })
        .await?,
    };
    announce(&fronts)?;
    std::future::pending().await
}

async fn connection(stream: Box<dyn Stream>, upstream: SocketAddr, tls: Option<Arc<ClientConfig>>) {
    let sender = match connect(upstream, tls).await {
        Ok(sender) => Arc::new(Mutex::new(sender)),
        Err(error) => return eprintln!("pass-through: {error:#}"),
    };
    let service = service_fn(move |request| forward(sender.clone(), request));
    // An error here only means that the client has closed the connection.
    drop(server::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn forward(
    sender: Arc<Mutex<SendRequest<Incoming>>>,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, hyper::Error> {
    // An HTTP/1.1 connection has one request at a time, so this lock is never contended.
    let mut sender = sender.lock().await;
    sender.ready().await?;
    sender.send_request(request).await
}

async fn connect(upstream: SocketAddr, tls: Option<Arc<ClientConfig>>) -> anyhow::Result<SendRequest<Incoming>> {
    let tcp = TcpStream::connect(upstream).await.context("failed to connect")?;
    tcp.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        Some(tls) => Box::new(TlsConnector::from(tls).connect(peer_name(), tcp).await?),
        None => Box::new(tcp),
    };
    let (sender, driver) = client::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(driver.await) });
    Ok(sender)
}
