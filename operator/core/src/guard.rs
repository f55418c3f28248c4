//! Decodes the objects of a watch one by one, so that one that cannot be read does not hold up all others.
//!
//! A CRD's schema and the Rust type can disagree: the operator may be older than the schema, or the schema too lax. kube's
//! `DeserializeGuard` isolates such an object too, but keeps neither the path of the field nor the fields that can be read.
//! Start at [`Guarded`].

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use mcp_fleet_crds::tenant::{Credentials, Enforcement, Images};
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use mcp_fleet_policy::units::Window;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_path_to_error::Segment;

use crate::labels::FINALIZER;
use crate::public_name::Names;

/// A kind that the operator watches with [`Guarded`].
pub trait GuardedKind:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Fields of the spec that have a default and without which the object still cannot be used.
    const ESSENTIAL_FIELDS: &'static [&'static str] = &[];

    /// Returns values of required fields with which an object can be torn down if its own cannot be read. None if the
    /// teardown needs to know them, or if the kind has no teardown.
    fn teardown_spec() -> Option<Value> {
        None
    }

    /// Returns the namespaces that the object claims.
    fn claimed_namespaces(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the host names that the object claims.
    fn claimed_hostnames(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns what in the status matters to others.
    fn shared_status(&self) -> Vec<String> {
        Vec::new()
    }

    /// Replaces defaults that are laxer than what a field that cannot be read may have said.
    fn tighten(&mut self, _dropped_fields: &[String]) {}
}

impl GuardedKind for MCPServer {
    fn teardown_spec() -> Option<Value> {
        Some(json!({"source": {"type": "Stdio"}}))
    }
}

impl GuardedKind for MCPTenant {
    // The default is the name of another namespace.
    const ESSENTIAL_FIELDS: &'static [&'static str] = &["runtimeNamespace"];

    fn claimed_namespaces(&self) -> Vec<String> {
        vec![self.spec.namespace.name.clone(), self.runtime_namespace()]
    }

    fn claimed_hostnames(&self) -> Vec<String> {
        let Names { wanted, in_use, former } = Names::of(self);
        let former = former.iter().map(|former| former.url.trim_start_matches("https://"));
        wanted.into_iter().chain(in_use).chain(former).map(str::to_owned).collect()
    }

    fn shared_status(&self) -> Vec<String> {
        // Tokens and policies follow the names that are in use and were.
        let Names { wanted: _, in_use, former } = Names::of(self);
        let in_use = in_use.unwrap_or_default().to_owned();
        std::iter::once(in_use).chain(former.iter().map(|former| former.url.clone())).collect()
    }

    fn tighten(&mut self, dropped_fields: &[String]) {
        if dropped_fields.iter().any(|field| field == "credentials") {
            // The shortest that the API admits.
            self.spec.credentials = Credentials { lifetime: Window::from_secs(60), overlap: Window::from_secs(10) };
        }
        if dropped_fields.iter().any(|field| field == "serverPods" || field == "images") {
            // It may require a node pool or a RuntimeClass, or allow what runs. Without an image, no pod is made, and what runs
            // stays as it is.
            self.spec.images = Images::default();
            self.spec.enforcement = Enforcement::Keep;
        }
    }
}

impl GuardedKind for MCPScope {}
impl GuardedKind for MCPPrincipal {}
impl GuardedKind for MCPBudget {}

/// An object, or what is known of one that cannot be read.
#[derive(Clone, Debug)]
pub enum Guarded<K> {
    Readable(Box<K>),
    Unreadable(Box<Unreadable<K>>),
}

/// An object that cannot be read as its kind.
#[derive(Clone, Debug)]
pub struct Unreadable<K> {
    pub metadata: ObjectMeta,
    /// Path of the first field that cannot be read, and what is wrong with it.
    pub problem: String,
    /// Conditions in the status; empty if they cannot be read either.
    pub conditions: Vec<Condition>,
    /// The object without the fields of its spec that cannot be read. None if it is no object of its kind without them.
    pub partial: Option<Arc<K>>,
    /// Names of the fields that `partial` lacks.
    pub dropped_fields: Vec<String>,
}

impl<K> Unreadable<K> {
    /// Returns the readable part of the object, if the given field of the spec belongs to it.
    pub fn with_field(&self, field: &str) -> Option<&Arc<K>> {
        self.partial.as_ref().filter(|_| !self.dropped_fields.iter().any(|name| name == field))
    }
}

impl<K: GuardedKind> Guarded<K> {
    /// Strips the metadata, also that of the readable part.
    pub fn strip(&mut self, strip: impl Fn(&mut ObjectMeta)) {
        match self {
            Self::Readable(object) => strip(object.meta_mut()),
            Self::Unreadable(unreadable) => {
                strip(&mut unreadable.metadata);
                if let Some(partial) = &mut unreadable.partial {
                    strip(Arc::make_mut(partial).meta_mut());
                }
            }
        }
    }

    fn read(mut object: Value) -> Result<Self, serde_json::Error> {
        let mut error = match decode::<K>(&object) {
            Ok(readable) => return Ok(Self::Readable(Box::new(readable))),
            Err(error) => error,
        };
        let conditions = object.pointer("/status/conditions").cloned().unwrap_or_default();
        if is_below(&error, "status") {
            // The status is the operator's own and is written again. It is no reason to refuse what a user wrote.
            remove(&mut object, "", "status");
            error = match decode::<K>(&object) {
                Ok(readable) => return Ok(Self::Readable(Box::new(readable))),
                Err(error) => error,
            };
        }
        let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone())?;
        let problem = describe(&error);
        let (mut partial, dropped_fields) = partial::<K>(&mut object, error);
        if is_torn_down(&metadata) {
            // A teardown needs little of the spec, and must not wait until somebody repairs the object.
            if let Some(spec) = partial.is_none().then(K::teardown_spec).flatten() {
                partial = with_fields::<K>(&mut object, spec);
            }
            if let Some(partial) = partial {
                return Ok(Self::Readable(Box::new(partial)));
            }
        }
        Ok(Self::Unreadable(Box::new(Unreadable {
            metadata,
            problem,
            conditions: serde_json::from_value(conditions).unwrap_or_default(),
            partial: partial.map(Arc::new),
            dropped_fields,
        })))
    }
}

type DecodeError = serde_path_to_error::Error<serde_json::Error>;

fn decode<K: DeserializeOwned>(object: &Value) -> Result<K, DecodeError> {
    serde_path_to_error::deserialize(object)
}

/// Removes fields of the spec until the object can be read. Returns it, if it can be read at all, and the names of the
/// removed fields.
fn partial<K: GuardedKind>(object: &mut Value, mut error: DecodeError) -> (Option<K>, Vec<String>) {
    let mut removed = Vec::new();
    loop {
        match spec_field(&error) {
            Some(field) if !K::ESSENTIAL_FIELDS.contains(&field.as_str()) && remove(object, "/spec", &field) => {
                removed.push(field);
            }
            // A required field is missing, or something outside of the spec cannot be read.
            _ => return (None, removed),
        }
        match decode::<K>(object) {
            Ok(mut partial) => {
                partial.tighten(&removed);
                return (Some(partial), removed);
            }
            Err(next) => error = next,
        }
    }
}

/// Returns the object with these fields of the spec, if it can be read with them and without others that cannot be read.
fn with_fields<K: GuardedKind>(object: &mut Value, fields: Value) -> Option<K> {
    match (object["spec"].as_object_mut(), fields) {
        (Some(spec), Value::Object(fields)) => spec.extend(fields),
        (_, fields) => object["spec"] = fields,
    }
    match decode(object) {
        Ok(object) => Some(object),
        Err(error) => partial(object, error).0,
    }
}

/// Returns the name of the field of the spec below which decoding failed.
fn spec_field(error: &DecodeError) -> Option<String> {
    let mut segments = error.path().iter();
    match (segments.next(), segments.next()) {
        (Some(Segment::Map { key }), Some(Segment::Map { key: field })) if key == "spec" => Some(field.clone()),
        _ => None,
    }
}

fn is_below(error: &DecodeError, field: &str) -> bool {
    matches!(error.path().iter().next(), Some(Segment::Map { key }) if key == field)
}

fn remove(object: &mut Value, pointer: &str, field: &str) -> bool {
    object.pointer_mut(pointer).and_then(Value::as_object_mut).is_some_and(|map| map.remove(field).is_some())
}

fn describe(error: &DecodeError) -> String {
    format!("{}: {}", error.path(), error.inner())
}

fn is_torn_down(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
        && metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

impl<'de, K: GuardedKind> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<K: Resource> Resource for Unreadable<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Readable(object) => object.meta(),
            Self::Unreadable(unreadable) => unreadable.meta(),
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Readable(object) => object.meta_mut(),
            Self::Unreadable(unreadable) => unreadable.meta_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::server::WorkspaceRetention;

    use super::*;
    use crate::testing::unreadable;

    fn object(kind: &str, metadata: &Value, spec: &Value) -> Value {
        let mut object = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "spec": spec,
            "metadata": {"name": "one", "namespace": "acme", "uid": "u-1", "resourceVersion": "7", "generation": 3}});
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        object
    }

    fn readable<K: GuardedKind>(object: Value) -> K {
        match serde_json::from_value(object).unwrap() {
            Guarded::Readable(object) => *object,
            Guarded::Unreadable(unreadable) => panic!("{} cannot be read", unreadable.problem),
        }
    }

    #[test]
    fn the_problem_names_the_field() {
        let spec = json!({"period": "Day", "amount": "9999999999"});
        let budget: Unreadable<MCPBudget> = unreadable(object("MCPBudget", &json!({}), &spec));
        assert!(budget.problem.starts_with("spec.amount: "), "{}", budget.problem);
        assert_eq!((budget.metadata.uid.as_deref(), budget.metadata.generation), (Some("u-1"), Some(3)));
        let spec = json!({"source": {"type": "Stdio"}, "tools": [{"name": "a", "class": "Read"}, {"name": "b", "class": "Odd"}]});
        let server: Unreadable<MCPServer> = unreadable(object("MCPServer", &json!({}), &spec));
        assert!(server.problem.starts_with("spec.tools[1].class: "), "{}", server.problem);
    }

    #[test]
    fn readable_fields_of_an_unreadable_object_are_kept() {
        let spec = json!({"suspend": true, "revokeIssuedBefore": "2026-11-22T12:00:00Z", "limits": {"burst": -1}});
        let principal: Unreadable<MCPPrincipal> = unreadable(object("MCPPrincipal", &json!({}), &spec));
        assert_eq!(principal.dropped_fields, ["limits"]);
        assert!(principal.with_field("limits").is_none());
        let partial = principal.with_field("suspend").unwrap();
        assert!(partial.spec.suspend && partial.spec.revoke_issued_before.is_some());
        let spec = json!({"suspend": "yes", "revokeIssuedBefore": "soon"});
        let principal: Unreadable<MCPPrincipal> = unreadable(object("MCPPrincipal", &json!({}), &spec));
        assert!(principal.with_field("suspend").is_none() && principal.with_field("revokeIssuedBefore").is_none());
    }

    #[test]
    fn without_a_required_field_nothing_is_left() {
        let budget: Unreadable<MCPBudget> = unreadable(object("MCPBudget", &json!({}), &json!({"period": "Decade"})));
        assert!(budget.partial.is_none());
        let spec = json!({"namespace": {"name": "acme"}, "runtimeNamespace": 5});
        let tenant: Unreadable<MCPTenant> = unreadable(object("MCPTenant", &json!({}), &spec));
        assert!(tenant.partial.is_none(), "another runtime namespace would be taken for its own");
        let principal: Unreadable<MCPPrincipal> = unreadable(object("MCPPrincipal", &json!({}), &json!("none")));
        assert!(principal.partial.is_none() && principal.dropped_fields.is_empty());
    }

    #[test]
    fn a_status_that_cannot_be_read_is_dropped() {
        let mut object = object("MCPBudget", &json!({}), &json!({"period": "Day", "calls": 5}));
        object["status"] = json!({"observedGeneration": "three"});
        assert_eq!(readable::<MCPBudget>(object).status, None);
    }

    #[test]
    fn an_unreadable_tenant_gets_the_shortest_credentials() {
        let spec = json!({"namespace": {"name": "acme"}, "credentials": {"lifetime": "soon"}, "traffic": {"callsPerMinute": 1}});
        let tenant: Unreadable<MCPTenant> = unreadable(object("MCPTenant", &json!({}), &spec));
        let partial = tenant.partial.unwrap();
        assert_eq!(partial.spec.credentials.lifetime, Window::from_secs(60));
        assert_eq!(partial.spec.traffic.calls_per_minute, Some(1));
    }

    #[test]
    fn no_pod_is_made_while_it_is_not_known_what_it_must_be_like() {
        for (field, value) in [("serverPods", json!({"runtimeClassName": 5})), ("images", json!({"allowed": [{}]}))] {
            let mut spec =
                json!({"namespace": {"name": "acme"}, "images": {"allowed": ["**"]}, "enforcement": "ScaleToZero"});
            spec[field] = value;
            let tenant: Unreadable<MCPTenant> = unreadable(object("MCPTenant", &json!({}), &spec));
            assert_eq!(tenant.dropped_fields, [field]);
            let partial = tenant.partial.unwrap();
            assert!(partial.spec.images.allowed.is_empty());
            assert_eq!(partial.spec.enforcement, Enforcement::Keep, "what runs stays as it is");
        }
    }

    #[test]
    fn an_object_is_torn_down_without_the_fields_that_cannot_be_read() {
        let deleted = json!({"deletionTimestamp": "2026-11-22T12:00:00Z", "finalizers": [FINALIZER]});
        let workspace = json!({"mountPath": "/workspace", "storage": "1Gi", "retain": "Delete"});
        let spec = json!({"source": {"type": "Odd"}, "workspace": workspace, "replicas": "many"});
        let server: MCPServer = readable(object("MCPServer", &deleted, &spec));
        assert!(server.metadata.deletion_timestamp.is_some() && server.spec.source.stdio.is_none());
        assert_eq!(server.spec.workspace.unwrap().retain, WorkspaceRetention::Delete);
        let server: MCPServer = readable(object("MCPServer", &deleted, &json!("nothing")));
        assert!(server.spec.workspace.is_none(), "what is not known to be unwanted stays");
        let spec =
            json!({"namespace": {"name": "acme", "deletionPolicy": "Delete"}, "traffic": {"callsPerMinute": -1}});
        let tenant: MCPTenant = readable(object("MCPTenant", &deleted, &spec));
        assert_eq!(tenant.spec.namespace.name, "acme");
        let spec = json!({"namespace": {"name": "acme", "deletionPolicy": "Odd"}});
        let tenant: Unreadable<MCPTenant> = unreadable(object("MCPTenant", &deleted, &spec));
        assert!(tenant.problem.starts_with("spec.namespace.deletionPolicy: "), "{}", tenant.problem);
        // Without the finalizer there is nothing to tear down.
        let deleted = json!({"deletionTimestamp": "2026-11-22T12:00:00Z", "finalizers": ["example.com/other"]});
        let _: Unreadable<MCPBudget> = unreadable(object("MCPBudget", &deleted, &json!({"period": "Decade"})));
    }
}
