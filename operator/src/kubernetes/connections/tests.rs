use std::collections::HashMap;
use std::convert::Infallible;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use mcp_fleet_core::credentials::ca::{Authority, LeafRequest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::kubernetes::client::from_config;

/// Requests by path, with the number of the connection on which each arrived.
type Seen = Arc<Mutex<Vec<(String, usize)>>>;

/// An API server that answers watches with one event, other requests with an object, and nothing more. It speaks the
/// protocols of `alpn`.
async fn api_server(alpn: &[&[u8]]) -> (Config, Seen) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (certificate, key) = Authority::generate(Timestamp::now()).unwrap();
    let authority = Authority::from_pem(&certificate, &key).unwrap();
    let names = LeafRequest { dns: vec!["localhost".into()], uri: None, server: true, client: false };
    let leaf = authority.issue(&names, Timestamp::now()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap();
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    tls.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (acceptor, seen) = (TlsAcceptor::from(Arc::new(tls)), Seen::default());
    let requests = Arc::clone(&seen);
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&requests));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = tower::service_fn(move |request: Request<hyper::body::Incoming>| {
                    seen.lock().push((request.uri().path().to_owned(), number));
                    let answer = answer(request.uri());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
            });
        }
    });
    let mut config = Config::new(url.parse().unwrap());
    config.root_cert = Some(vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec()]);
    (config, seen)
}

fn answer(uri: &http::Uri) -> Answer {
    let frames = |text: &str| futures::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from(text.to_owned())))]);
    let body: Box<DynBody> = if is_watch(uri) {
        let event = r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}}"#;
        Box::new(StreamBody::new(frames(&format!("{event}\n")).chain(futures::stream::pending())))
    } else {
        Box::new(StreamBody::new(frames(r#"{"metadata":{},"items":[]}"#)))
    };
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

type Watch = futures::stream::BoxStream<'static, kube::Result<WatchEvent<Secret>>>;

/// Opens watches and waits for the first event of each.
async fn open(client: &Client, count: usize) -> Vec<Watch> {
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    futures::stream::iter(0..count)
        .map(|_| async {
            let mut watch = secrets.watch(&WatchParams::default(), "0").await.unwrap().boxed();
            assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
            watch
        })
        .buffer_unordered(16)
        .collect()
        .await
}

fn connections(seen: &Seen, path: &str) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    for (_, connection) in seen.lock().iter().filter(|(found, _)| found.ends_with(path)) {
        *counts.entry(*connection).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn watches_share_connections_and_the_lease_has_its_own() {
    let (config, seen) = api_server(&[b"h2", b"http/1.1"]).await;
    let client = from_config(config).unwrap();
    let most = MAX_WATCHES as usize;
    let mut watches = open(&client, 2 * most + 1).await;
    let mut counts: Vec<usize> = connections(&seen, "/secrets").into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, most, most]);

    // The place of a watch that ended is free.
    watches.truncate(most);
    let known = connections(&seen, "/secrets").len();
    let _more = open(&client, most).await;
    assert_eq!(connections(&seen, "/secrets").len(), known);

    Api::<ConfigMap>::default_namespaced(client.clone()).list(&ListParams::default()).await.unwrap();
    Api::<Lease>::default_namespaced(client).list(&ListParams::default()).await.unwrap();
    let paths = ["/secrets", "/configmaps", "/leases"].map(|path| connections(&seen, path));
    assert!(paths.iter().all(|found| !found.is_empty()));
    let all: usize = paths.iter().map(HashMap::len).sum();
    let distinct: std::collections::HashSet<_> = paths.iter().flat_map(HashMap::keys).collect();
    assert_eq!(distinct.len(), all, "two kinds of requests share a connection: {paths:?}");
}

#[tokio::test]
async fn without_http_2_each_watch_has_a_connection() {
    let (config, seen) = api_server(&[b"http/1.1"]).await;
    let _watches = open(&from_config(config).unwrap(), 3).await;
    assert_eq!(connections(&seen, "/secrets").len(), 3);
}
