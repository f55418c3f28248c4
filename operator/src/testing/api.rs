//! A fake API server behind `kube::Client`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use mcp_fleet_crds::condition::pending_status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// An API server that serves objects from memory and records every write. It knows no schemas and runs no controllers.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Objects by their path.
    objects: BTreeMap<String, Value>,
    writes: Vec<Write>,
    /// Objects of which a change is refused, by their path, and why.
    failures: Vec<(Method, String, StatusCode, String)>,
    reads: Vec<String>,
    uids: u32,
    /// Receives every stored object with its path, like a watch.
    watcher: Option<mpsc::UnboundedSender<(String, Value)>>,
}

/// A request that changes something.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

impl Write {
    /// Returns the method and the path without its API group and version, for example `PUT mcptenants/acme/status`.
    pub(crate) fn short(&self) -> String {
        format!("{} {}", self.method, resource_path(&self.path).join("/"))
    }
}

impl FakeApi {
    /// Returns a client of this API server. It needs a Tokio runtime.
    pub(crate) fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let api = self.clone();
        tokio::spawn(async move {
            while let Some((request, respond)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (status, answer) = api.answer(&head.method, head.uri.path(), body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                respond.send_response(Response::builder().status(status).body(answer).unwrap());
            }
        });
        Client::new(service, "default")
    }

    /// Stores an object at a path.
    pub(crate) fn insert(&self, path: &str, object: Value) {
        self.0.lock().objects.insert(path.to_owned(), object);
    }

    /// Starts to send every stored object with its path. From then on, workloads are ready and Services have an address.
    pub(crate) fn watch(&self) -> mpsc::UnboundedReceiver<(String, Value)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().watcher = Some(sender);
        receiver
    }

    /// Creates an object of our kinds, or replaces its spec, as a user does.
    pub(crate) fn apply(&self, path: &str, mut object: Value) {
        let mut state = self.0.lock();
        let before = state.objects.get(path).cloned().unwrap_or_default();
        object["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        object["status"] = match &before["status"] {
            Value::Null => pending_status(),
            status => status.clone(),
        };
        state.store(path.to_owned(), object);
    }

    /// Has changes of the object at a path refused, as an admission plugin does.
    pub(crate) fn forbid(&self, path: &str, why: &str) {
        self.fail(Method::PATCH, path, StatusCode::FORBIDDEN, why);
    }

    /// Has all later requests of a method for a path fail.
    pub(crate) fn fail(&self, method: Method, path: &str, code: StatusCode, why: &str) {
        self.0.lock().failures.push((method, path.to_owned(), code, why.to_owned()));
    }

    /// Removes the object at a path.
    pub(crate) fn remove(&self, path: &str) {
        assert!(self.0.lock().objects.remove(path).is_some(), "there is no {path}");
    }

    /// Returns the object at a path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    /// Returns the writes since the last call, except Events.
    pub(crate) fn take_writes(&self) -> Vec<Write> {
        let (events, writes) = std::mem::take(&mut self.0.lock().writes).into_iter().partition(is_event);
        self.0.lock().writes = events;
        writes
    }

    /// Returns the paths of the reads since the last call.
    pub(crate) fn take_reads(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().reads)
    }

    /// Returns the reasons of the Events since the last call.
    pub(crate) fn take_events(&self) -> Vec<String> {
        let (events, writes): (Vec<_>, _) = std::mem::take(&mut self.0.lock().writes).into_iter().partition(is_event);
        self.0.lock().writes = writes;
        events.iter().map(|event| event.body["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        let mut state = self.0.lock();
        if *method == Method::PUT && state.is_outdated(path.trim_end_matches("/status"), &body) {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409});
            return (StatusCode::CONFLICT, status);
        }
        if let Some((_, _, code, why)) = state.failures.iter().rev().find(|it| it.0 == *method && it.1 == path) {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "message": why});
            return (*code, status);
        }
        if *method == Method::GET {
            state.reads.push(path.to_owned());
        } else {
            state.writes.push(Write { method: method.clone(), path: path.to_owned(), body: body.clone() });
        }
        match *method {
            Method::GET if is_collection(path) => {
                let prefix = format!("{path}/");
                let items: Vec<_> = state.objects.range(prefix.clone()..).collect();
                let items = items.into_iter().take_while(|(path, _)| path.starts_with(&prefix));
                let items: Vec<_> = items.map(|(_, object)| object.clone()).collect();
                (StatusCode::OK, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            Method::GET => state.objects.get(path).map_or_else(not_found, |object| (StatusCode::OK, object.clone())),
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                if state.objects.contains_key(&path) {
                    state.writes.pop();
                    return already_exists();
                }
                (StatusCode::CREATED, state.store(path, body))
            }
            Method::PUT if path.ends_with("/status") => {
                let path = path.trim_end_matches("/status").to_owned();
                (StatusCode::OK, state.store(path, body))
            }
            Method::PUT => (StatusCode::OK, state.store(path.to_owned(), body)),
            // A JSON patch is recorded, but not carried out.
            Method::PATCH if body.is_array() => {
                state.objects.get(path).map_or_else(not_found, |object| (StatusCode::OK, object.clone()))
            }
            Method::PATCH if body.get("apiVersion").is_some() => (StatusCode::OK, state.store(path.to_owned(), body)),
            Method::PATCH => match state.objects.get_mut(path) {
                Some(object) => {
                    merge(object, body);
                    (StatusCode::OK, object.clone())
                }
                None => not_found(),
            },
            Method::DELETE => match state.objects.remove(path) {
                Some(_) => (StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
                None => not_found(),
            },
            _ => (StatusCode::METHOD_NOT_ALLOWED, Value::Null),
        }
    }
}

impl State {
    /// Whether an object was read before its last change. An object without a version replaces any.
    fn is_outdated(&self, path: &str, object: &Value) -> bool {
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        let stored = self.objects.get(path).and_then(version);
        version(object).is_some_and(|version| stored.is_some_and(|stored| stored != version))
    }

    /// Stores an object as the API server would: with a UID, a version, and the operator as the owner of its fields.
    fn store(&mut self, path: String, mut object: Value) -> Value {
        self.uids += 1;
        let before = self.objects.get(&path);
        let uid = before.unwrap_or(&object)["metadata"]["uid"].clone();
        object["metadata"]["uid"] = if uid.is_string() { uid } else { json!(format!("o-{}", self.uids)) };
        object["metadata"]["resourceVersion"] = json!(self.uids.to_string());
        if let Some(watcher) = &self.watcher {
            let endpoints = run(&mut object, self.uids);
            let _ = watcher.send((path.clone(), object.clone()));
            if let Some(endpoints) = endpoints {
                let _ = watcher.send((format!("{path}/endpoints"), endpoints));
            }
        }
        self.objects.insert(path, object.clone());
        object
    }
}

/// Does what the controllers of Kubernetes do for an object: pods become ready, and Services get EndpointSlices, which are
/// returned.
fn run(object: &mut Value, number: u32) -> Option<Value> {
    let replicas = object["spec"]["replicas"].clone();
    match object["kind"].as_str() {
        Some("Deployment" | "StatefulSet") => {
            object["status"] = json!({"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas,
                "availableReplicas": replicas});
        }
        Some("ResourceQuota") => {
            let limits = object["spec"]["hard"].clone();
            let used = limits.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), json!("0")));
            object["status"] = json!({"used": Value::Object(used.collect()), "hard": limits});
        }
        Some("Service") => {
            let mut metadata = object["metadata"].clone();
            metadata["uid"] = json!(format!("{}-endpoints", metadata["uid"].as_str().unwrap_or_default()));
            let address = format!("10.244.{}.{}", number / 250, number % 250 + 1);
            return Some(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
                "addressType": "IPv4", "ports": object["spec"]["ports"],
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]}));
        }
        _ => {}
    }
    None
}

fn is_event(write: &Write) -> bool {
    write.path.contains("/events")
}

fn already_exists() -> (StatusCode, Value) {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "AlreadyExists", "code": 409});
    (StatusCode::CONFLICT, status)
}

fn not_found() -> (StatusCode, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
    (StatusCode::NOT_FOUND, status)
}

/// Returns the parts of a path after API group, version and namespace. Two parts name an object, one a collection.
fn resource_path(path: &str) -> Vec<&str> {
    let mut parts = path.trim_start_matches('/').split('/');
    let prefix = if parts.next() == Some("api") { 1 } else { 2 };
    let parts: Vec<_> = parts.skip(prefix).collect();
    match parts.as_slice() {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.to_vec(),
        all => all.to_vec(),
    }
}

fn is_collection(path: &str) -> bool {
    resource_path(path).len() == 1
}

/// A JSON merge patch (RFC 7396).
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}
