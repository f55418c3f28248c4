//! A fake shim whose behaviour a test sets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcp_pod::envelope::{CALL_PATH, CANCEL_PATH, CallHeader, EPOCH_HEADER, SERVER_PATH};
use mcp_pod::tls::server_config_mutual;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Notify, RwLock, RwLockWriteGuard, watch};
use tokio_rustls::TlsAcceptor;

use super::pki::{GATEWAY_URI, Pki};

/// How the shim answers calls.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Answers with these bytes.
    Answer(Bytes),
    /// Answers with these chunks, each after a pause.
    Slow(Vec<Bytes>, Duration),
    /// Never answers.
    Hang,
    /// Answers with these bytes when the test calls [`Shim::finish_work`], cancelled or not.
    Work(Bytes),
    /// Answers with the first bytes at once, and with the others when the test calls [`Shim::finish_work`].
    Begin(Bytes, Bytes),
    /// Closes the connection without an answer.
    Close,
    /// Closes the connection after these bytes of the answer.
    Break(Bytes),
    /// Answers with this status.
    Status(u16),
}

/// A call that the shim received.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedCall {
    pub(crate) header: Arc<CallHeader>,
    pub(crate) params: Value,
    pub(crate) line: String,
}

/// A fake shim.
pub(crate) struct Shim {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    calls: Mutex<Vec<ReceivedCall>>,
    connections: AtomicUsize,
    /// Calls whose connection was closed before they were answered.
    abandoned: AtomicUsize,
    /// ULIDs of the calls that were cancelled.
    cancelled: Mutex<Vec<String>>,
    /// Statuses of the answers to the next cancellations; 204 if there is none.
    cancel_statuses: Mutex<Vec<u16>>,
    /// Finishes the work on calls.
    finishing: watch::Sender<()>,
    epoch: AtomicU64,
    report: Mutex<String>,
    /// Whether the shim has no report, as before its server has started.
    starting: AtomicBool,
    /// Connections wait for this lock before their handshake.
    accepting: RwLock<()>,
    /// Connections that wait for their handshake.
    knocking: AtomicUsize,
    /// Closes all connections.
    closing: Notify,
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

impl Shim {
    pub(crate) async fn start(pki: &Pki) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(server_config_mutual(Arc::clone(&pki.shim), GATEWAY_URI).unwrap());
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Behaviour::Answer(Bytes::from_static(
                b"{\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n",
            ))),
            calls: Mutex::default(),
            connections: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            cancelled: Mutex::default(),
            cancel_statuses: Mutex::default(),
            finishing: watch::Sender::default(),
            epoch: AtomicU64::new(1),
            report: Mutex::new(REPORT.replace('\n', " ")),
            starting: AtomicBool::new(false),
            accepting: RwLock::new(()),
            knocking: AtomicUsize::new(0),
            closing: Notify::new(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    shared.knocking.fetch_add(1, Ordering::SeqCst);
                    drop(shared.accepting.read().await);
                    shared.knocking.fetch_sub(1, Ordering::SeqCst);
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    let answering = Arc::clone(&shared);
                    let service = service_fn(move |request| answer(request, Arc::clone(&answering)));
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = connection => {}
                        () = shared.closing.notified() => {}
                    }
                });
            }
        });
        Self { address, shared }
    }

    /// Sets how calls are answered from now on.
    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock() = behaviour;
    }

    /// Answers calls with these lines from now on.
    pub(crate) fn answer(&self, lines: &str) {
        self.set_behaviour(Behaviour::Answer(Bytes::from(lines.to_owned())));
    }

    /// Returns the calls received so far.
    pub(crate) fn calls(&self) -> Vec<ReceivedCall> {
        self.shared.calls.lock().clone()
    }

    /// Returns how many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes all connections.
    pub(crate) fn close_connections(&self) {
        self.shared.closing.notify_waiters();
    }

    /// Lets new connections wait for their handshake until the guard is dropped.
    pub(crate) async fn hold_handshakes(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.accepting.write().await
    }

    /// Returns how many connections wait for their handshake.
    pub(crate) fn knocking(&self) -> usize {
        self.shared.knocking.load(Ordering::SeqCst)
    }

    /// Ends the work on all calls received so far.
    pub(crate) fn finish_work(&self) {
        self.shared.finishing.send_replace(());
    }

    /// Returns how many calls were cancelled without closing their connection.
    pub(crate) fn cancelled(&self) -> usize {
        self.shared.cancelled.lock().len()
    }

    /// Answers the next cancellations with these statuses, the last one first.
    pub(crate) fn refuse_cancellations(&self, statuses: &[u16]) {
        *self.shared.cancel_statuses.lock() = statuses.to_vec();
    }

    /// Returns how many calls lost their connection before they were answered.
    pub(crate) fn abandoned(&self) -> usize {
        self.shared.abandoned.load(Ordering::SeqCst)
    }

    /// Sets the report, as a pod has it whose server starts for the first time.
    pub(crate) fn set_report(&self, report: &str) {
        report.clone_into(&mut self.shared.report.lock());
    }

    /// Sets whether the server has not started yet, so that there is no report.
    pub(crate) fn set_starting(&self, starting: bool) {
        self.shared.starting.store(starting, Ordering::SeqCst);
    }

    /// Simulates a restart of the server, which has this report from now on.
    pub(crate) fn restart(&self, report: &str) {
        *self.shared.report.lock() = report.replace('\n', " ");
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts a call as abandoned on drop.
struct CountAbandoned<'a>(&'a Shared);

impl Drop for CountAbandoned<'_> {
    fn drop(&mut self) {
        self.0.abandoned.fetch_add(1, Ordering::SeqCst);
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    let epoch = shared.epoch.load(Ordering::SeqCst);
    let respond = |status: u16, body: Body| {
        let response = Response::builder().status(status).header(EPOCH_HEADER, epoch);
        Ok(response.body(body).unwrap())
    };
    if request.uri().path() == SERVER_PATH {
        if shared.starting.load(Ordering::SeqCst) {
            return respond(503, whole(Bytes::new()));
        }
        return respond(200, whole(Bytes::from(shared.report.lock().clone())));
    }
    if request.uri().path() == CANCEL_PATH {
        let call = request.into_body().collect().await.unwrap().to_bytes();
        let status = shared.cancel_statuses.lock().pop().unwrap_or(204);
        if status == 204 {
            let call = String::from_utf8(call.to_vec()).unwrap();
            assert!(shared.calls.lock().iter().any(|known| known.header.call == call), "the call {call} is unknown");
            shared.cancelled.lock().push(call);
        }
        return respond(status, whole(Bytes::new()));
    }
    assert_eq!(request.uri().path(), CALL_PATH);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let (header, params) = text.split_once('\n').unwrap();
    let line = params.strip_suffix('\n').unwrap().to_owned();
    assert!(!line.contains('\n'), "the parameters are one line");
    let header = Arc::new(serde_json::from_str(header).unwrap());
    // Before the test can see the call, so that it cannot end the work too early.
    let mut finished = shared.finishing.subscribe();
    shared.calls.lock().push(ReceivedCall { header, params: serde_json::from_str(&line).unwrap(), line });
    let behaviour = shared.behaviour.lock().clone();
    match behaviour {
        Behaviour::Answer(bytes) => respond(200, whole(bytes)),
        Behaviour::Status(status) => respond(status, whole(Bytes::new())),
        Behaviour::Close => Err(std::io::ErrorKind::BrokenPipe.into()),
        Behaviour::Hang => {
            let _abandoned = CountAbandoned(&shared);
            std::future::pending::<Infallible>().await;
            respond(500, whole(Bytes::new()))
        }
        Behaviour::Work(bytes) => {
            finished.changed().await.unwrap();
            respond(200, whole(bytes))
        }
        Behaviour::Begin(first, rest) => {
            let rest = futures::stream::once(async move {
                // The sender is gone when the test has ended.
                let _ = finished.changed().await;
                Ok(Frame::data(rest))
            });
            let pieces = futures::stream::iter([Ok(Frame::data(first))]).chain(rest);
            respond(200, BodyExt::boxed(StreamBody::new(SyncStream::new(pieces.boxed()))))
        }
        Behaviour::Break(bytes) => {
            let broken = Err(std::io::ErrorKind::BrokenPipe.into());
            let pieces = futures::stream::iter([Ok(Frame::data(bytes)), broken]);
            respond(200, BodyExt::boxed(StreamBody::new(pieces)))
        }
        Behaviour::Slow(pieces, pause) => {
            let pieces = futures::stream::iter(pieces).then(move |piece| async move {
                tokio::time::sleep(pause).await;
                Ok(Frame::data(piece))
            });
            let boxed: Body = BodyExt::boxed(StreamBody::new(SyncStream::new(pieces.boxed())));
            respond(StatusCode::OK.as_u16(), boxed)
        }
    }
}

/// A stream that is `Sync`, which `BoxBody` requires and a boxed stream is not. Only one task ever polls it.
struct SyncStream<S>(Mutex<S>);

impl<S> SyncStream<S> {
    fn new(stream: S) -> Self {
        Self(Mutex::new(stream))
    }
}

impl<S: futures::Stream + Unpin> futures::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().poll_next_unpin(cx)
    }
}

fn whole(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// Default report of the server.
const REPORT: &str = r#"{"version":1,
"initialize":{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"logging":{}},
  "serverInfo":{"name":"secure-files","version":"1.2.3","title":"Files"},"instructions":"Be careful."},
"tools":[
  {"name":"wipe","description":"Wipes","inputSchema":{"type":"object"}},
  {"name":"write","description":"Writes","inputSchema":{"type":"object","properties":{"path":{"type":"string"}}}},
  {"name":"read","description":"Reads a file","inputSchema":{"type":"object","properties":{"path":{"type":"string"},
    "head":{"type":"number"},"tail":{"type":"number"}},"required":["path"]}},
  {"name":"undeclared","description":"Not in the catalogue","inputSchema":{"type":"object"}}]}"#;
