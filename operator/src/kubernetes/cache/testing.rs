//! An API server for tests that serves lists and watches of custom resources from memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// An API server that serves lists and watches from memory, and records writes. It knows no schemas.
#[derive(Clone, Default)]
pub(crate) struct WatchedApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    /// Current objects, with the plural of their kind.
    objects: Vec<(String, Value)>,
    /// All watch events since the start.
    events: Vec<(u64, String, Value)>,
    watches: Vec<(String, mpsc::UnboundedSender<Value>)>,
    writes: Vec<String>,
    /// Whether lists of metadata fail, with which freshness is proved.
    fails_proofs: bool,
    /// Objects in lists of metadata.
    listed_metadata: usize,
    /// Whether short watches end without a bookmark.
    sends_no_bookmarks: bool,
}

impl WatchedApi {
    /// Returns a client of this API server.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let query = head.uri.query().unwrap_or_default();
                let only_metadata = head
                    .headers
                    .get(http::header::ACCEPT)
                    .is_some_and(|accept| accept.to_str().unwrap().contains("as=PartialObjectMetadata"));
                Ok::<_, Infallible>(api.answer(&head.method, head.uri.path(), query, only_metadata, &body))
            }
        });
        Client::new(service, "default")
    }

    /// Creates or replaces an object, as a user would.
    pub(crate) fn put(&self, plural: &str, object: Value) {
        self.0.lock().put(plural, object);
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, plural: &str, name: &str) {
        let mut state = self.0.lock();
        let index = state.index(plural, name).unwrap();
        let (_, mut object) = state.objects.remove(index);
        let version = state.next_version();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.announce("DELETED", plural, &object);
    }

    /// Returns the object with this name.
    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let state = self.0.lock();
        state.index(plural, name).map(|index| state.objects[index].1.clone())
    }

    /// Makes proofs of freshness fail, or succeed again.
    pub(crate) fn fail_proofs(&self, fail: bool) {
        self.0.lock().fails_proofs = fail;
    }

    /// Ends short watches without a bookmark, or with one again.
    pub(crate) fn send_no_bookmarks(&self, none: bool) {
        self.0.lock().sends_no_bookmarks = none;
    }

    /// Returns the number of objects in lists of metadata since the last call.
    pub(crate) fn take_listed_metadata(&self) -> usize {
        std::mem::take(&mut self.0.lock().listed_metadata)
    }

    /// Ends all watches, and forgets the events so far, so that clients have to list again.
    pub(crate) fn end_watches(&self) {
        let mut state = self.0.lock();
        state.events.clear();
        state.watches.clear();
    }

    /// Returns method and path of the writes since the last call.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().writes)
    }

    fn answer(&self, method: &Method, path: &str, query: &str, only_metadata: bool, body: &[u8]) -> Answer {
        let mut state = self.0.lock();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        if *method == Method::GET && query.contains("watch=true") {
            return state.watch(parts.last().unwrap(), query);
        }
        if *method == Method::GET && only_metadata && state.fails_proofs {
            let failure = json!({"kind": "Status", "status": "Failure", "code": 500, "reason": "InternalError"});
            return answer(StatusCode::INTERNAL_SERVER_ERROR, &failure);
        }
        if let ([.., "namespaces", _, plural, name], &Method::GET) = (parts.as_slice(), method) {
            return match state.index(plural, name) {
                Some(index) => answer(StatusCode::OK, &state.objects[index].1),
                None => answer(
                    StatusCode::NOT_FOUND,
                    &json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"}),
                ),
            };
        }
        if *method == Method::GET {
            let mut list = state.list(parts.last().unwrap(), only_metadata);
            let items = list["items"].as_array_mut().unwrap();
            // Other limits are for pages, which are not supported.
            if query.split('&').any(|parameter| parameter == "limit=1") {
                items.truncate(1);
            }
            if only_metadata {
                state.listed_metadata += items.len();
            }
            return answer(StatusCode::OK, &list);
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        state.writes.push(format!("{method} {path}"));
        match parts.as_slice() {
            [.., plural, name, "status"] if *method == Method::PATCH => match state.patch_status(plural, name, &body) {
                Some(object) => answer(StatusCode::OK, &object),
                None => answer(
                    StatusCode::CONFLICT,
                    &json!({"kind": "Status", "status": "Failure", "code": 409,
                    "reason": "Conflict"}),
                ),
            },
            _ => answer(StatusCode::OK, &body),
        }
    }
}

impl State {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn index(&self, plural: &str, name: &str) -> Option<usize> {
        self.objects.iter().position(|(kind, object)| kind == plural && object["metadata"]["name"] == name)
    }

    fn put(&mut self, plural: &str, mut object: Value) {
        let version = self.next_version();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        match self.index(plural, &name) {
            None => {
                object["metadata"]["uid"] = json!(format!("uid-{name}"));
                object["metadata"]["generation"] = json!(1);
                self.objects.push((plural.to_owned(), object.clone()));
                self.announce("ADDED", plural, &object);
            }
            Some(index) => {
                let before = &self.objects[index].1;
                object["metadata"]["uid"] = before["metadata"]["uid"].clone();
                let generation = before["metadata"]["generation"].as_i64().unwrap();
                let changed = before["spec"] != object["spec"];
                object["metadata"]["generation"] = json!(generation + i64::from(changed));
                self.objects[index].1 = object.clone();
                self.announce("MODIFIED", plural, &object);
            }
        }
    }

    fn patch_status(&mut self, plural: &str, name: &str, patch: &Value) -> Option<Value> {
        let mut object = self.objects[self.index(plural, name)?].1.clone();
        let wanted = &patch["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
            return None;
        }
        for (field, value) in patch["status"].as_object().unwrap() {
            object["status"][field] = value.clone();
        }
        self.put(plural, object.clone());
        Some(object)
    }

    fn announce(&mut self, kind: &str, plural: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        self.events.push((self.version, plural.to_owned(), event.clone()));
        self.watches.retain(|(watched, sender)| watched != plural || sender.send(event.clone()).is_ok());
    }

    fn list(&self, plural: &str, only_metadata: bool) -> Value {
        let of_kind = self.objects.iter().filter(|(kind, _)| kind == plural).map(|(_, object)| object);
        let items: Vec<Value> = of_kind
            .map(|object| if only_metadata { json!({"metadata": object["metadata"]}) } else { object.clone() })
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": self.version.to_string()}})
    }

    fn watch(&mut self, plural: &str, query: &str) -> Answer {
        let since = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
        let since: u64 = since.parse().unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        if since < self.version && self.events.first().is_none_or(|(version, ..)| *version > since + 1) {
            let gone = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410,
                "reason": "Expired", "message": "too old resource version"}});
            sender.send(gone).unwrap();
        }
        for (_, _, event) in self.events.iter().filter(|(version, kind, _)| *version > since && kind == plural) {
            sender.send(event.clone()).unwrap();
        }
        // The API server sends a bookmark before it ends a short watch.
        if query.split('&').any(|parameter| parameter == "timeoutSeconds=3") {
            let metadata = json!({"resourceVersion": self.version.to_string()});
            let bookmark =
                json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "Any", "metadata": metadata}});
            if !self.sends_no_bookmarks {
                sender.send(bookmark).unwrap();
            }
        } else {
            self.watches.push((plural.to_owned(), sender));
        }
        let lines = UnboundedReceiverStream::new(events)
            .map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

fn answer(status: StatusCode, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(serde_json::to_vec(body).unwrap()));
    Response::builder().status(status).body(body.boxed_unsync()).unwrap()
}

/// How long a test waits for something that has to happen. Only a hang takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `check` returns something.
pub(crate) async fn eventually<T>(what: &str, check: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "not seen in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns a budget with this amount. 9999999999 is too large to be read.
pub(crate) fn budget(name: &str, amount: &str) -> Value {
    json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPBudget",
        "metadata": {"name": name, "namespace": "acme"}, "spec": {"period": "Day", "amount": amount}})
}
