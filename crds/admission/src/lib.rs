//! What an API server does with an object of MCP Fleet before it stores it, without an API server: it refuses unknown
//! fields, fills in defaults, and checks the schema, the CEL rules and the admission policies.
//!
//! All of that comes from the definitions that are installed in clusters ([`mcp_fleet_crds::all`] and
//! [`mcp_fleet_crds::admission`]), so an object that a cluster refuses is refused here with the same message. The tables
//! of `crds/tests/cases` are tested against both.
//!
//! Start at [`Admission::admit`]. [`schema`] is a definition as it is used here, [`check`] applies it to an object,
//! [`cel`] evaluates rules, and [`policy`] the admission policies.

mod cel;
mod check;
mod policy;
mod schema;
mod violation;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use mcp_fleet_crds::admission;
use serde_json::{Value, json};

use crate::cel::Engine;

use policy::{Policy, Request};
use schema::Node;

pub use violation::{Path, Refusal, Segment, Violation};

/// Namespace of the operator, which some policies name.
const OPERATOR_NAMESPACE: &str = "mcp-fleet-system";

/// Why a definition cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// A CEL expression is not valid.
    #[error("failed to compile the expression {expression:?}: {detail}")]
    Expression {
        /// The expression.
        expression: String,
        /// What the parser says.
        detail: String,
    },
    /// A pattern is not valid.
    #[error("failed to compile a pattern")]
    Pattern(#[from] regex::Error),
    /// A definition uses something that is not evaluated here.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// A definition has no schema.
    #[error("{0} has no schema")]
    NoSchema(String),
}

/// One kind of object.
#[derive(Debug)]
struct Kind {
    plural: String,
    is_namespaced: bool,
    root: Node,
}

/// The definitions and policies of a cluster.
#[derive(Debug)]
pub struct Admission {
    engine: Engine,
    kinds: BTreeMap<String, Kind>,
    policies: Vec<Policy>,
}

impl Admission {
    /// Compiles the definitions and policies that are installed with this version.
    pub fn new() -> Result<Self, DefinitionError> {
        let engine = Engine::new();
        let mut kinds = BTreeMap::new();
        for definition in mcp_fleet_crds::all() {
            let kind = Kind::new(&engine, &definition)?;
            kinds.insert(definition.spec.names.kind, kind);
        }
        let with_crds = admission::with_crds().into_iter().map(|(_, admission)| admission);
        let installed = with_crds.chain(admission::with_operator(OPERATOR_NAMESPACE));
        let policies = installed.filter_map(|admission| Policy::new(&engine, &admission.policy).transpose());
        let policies = policies.collect::<Result<_, _>>()?;
        Ok(Self { engine, kinds, policies })
    }

    /// Returns whether objects of a kind are in a namespace; none if there is no such kind.
    pub fn is_namespaced(&self, kind: &str) -> Option<bool> {
        self.kinds.get(kind).map(|kind| kind.is_namespaced)
    }

    /// Returns an object as the API server would store it, that is, with its defaults and without a status.
    ///
    /// `old` is the object that is stored already, if any. `namespace_labels` are the labels of its namespace.
    pub fn admit(
        &self,
        object: &Value,
        old: Option<&Value>,
        namespace_labels: &BTreeMap<String, String>,
    ) -> Result<Value, Refusal> {
        let kind_name = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let refuse = |violations| Refusal { kind: kind_name.to_owned(), name: name.to_owned(), violations };
        let Some(kind) = self.kinds.get(kind_name) else {
            let text = format!("no matches for kind {kind_name:?} in version {:?}", object["apiVersion"]);
            return Err(refuse(vec![Violation::new(Path::root().child("kind"), text)]));
        };
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        let unknown = check::unknown_fields(&kind.root, &object);
        if !unknown.is_empty() {
            return Err(refuse(unknown));
        }
        check::set_defaults(&kind.root, &mut object);
        if let Some(fields) = object.as_object_mut() {
            // The default is the status of an object that nobody has seen, which says nothing here.
            fields.remove("status");
        }
        let violations = check::violations(&self.engine, &kind.root, &object, old);
        if !violations.is_empty() {
            return Err(refuse(violations));
        }
        let request = Request {
            operation: if old.is_some() { "UPDATE" } else { "CREATE" },
            plural: &kind.plural,
            object: &object,
            old,
            namespace_labels,
        };
        let denied = self.policies.iter().find_map(|policy| policy.denial(&self.engine, &request));
        denied.map_or(Ok(()), |text| Err(refuse(vec![Violation::new(Path::root(), text)])))?;
        Ok(object)
    }
}

impl Kind {
    fn new(engine: &Engine, definition: &CustomResourceDefinition) -> Result<Self, DefinitionError> {
        let mut schemas = definition.spec.versions.iter().filter_map(|version| version.schema.as_ref());
        let schema = schemas.find_map(|schema| schema.open_api_v3_schema.as_ref());
        let schema = schema.ok_or_else(|| DefinitionError::NoSchema(definition.spec.names.kind.clone()))?;
        let mut root = Node::new(engine, schema)?;
        root.add_envelope(engine)?;
        Ok(Self {
            plural: definition.spec.names.plural.clone(),
            is_namespaced: definition.spec.scope == "Namespaced",
            root,
        })
    }
}

/// Returns the metadata that people write, as a schema. The API server knows more fields, which it sets itself.
fn metadata_schema() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let owner = json!({"type": "object", "required": ["apiVersion", "kind", "name", "uid"], "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "name": {"type": "string"},
        "uid": {"type": "string"}, "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"}}});
    json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": texts,
        "annotations": texts,
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "items": owner},
    }})
}
