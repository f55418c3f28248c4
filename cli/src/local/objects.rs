//! The objects of this fleet, as an API server would store them: admitted, with UIDs and generations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use mcp_fleet_admission::{Admission, Path as FieldPath};
use mcp_fleet_core::local::LocalOperator;
use mcp_fleet_crds::names::{GROUP, LABEL_TENANT, LABEL_TENANT_UID, VERSION};
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ulid::Ulid;

use super::manifest::{Document, Manifests, Problem};
use super::sources::Sources;

/// Kinds, in the order in which they are admitted: tenants say which namespaces there are.
const KINDS: [&str; 5] = ["MCPTenant", "MCPServer", "MCPScope", "MCPPrincipal", "MCPBudget"];
/// The namespace of an object that names none, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";
/// The ConfigMap that stops all calls.
const KILL_SWITCH: (&str, &str) = ("mcp-fleet-system", "mcp-fleet-kill-switch");

/// Identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: &'static str,
    namespace: String,
    name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    uid: String,
    generation: i64,
    created: Timestamp,
    /// The file that it was read from.
    file: PathBuf,
    object: Value,
}

/// All objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    stored: BTreeMap<Key, Stored>,
    /// What servers are configured with, as it was last read.
    sources: Sources,
    /// The kill switch as it was last applied.
    kill_switch: Option<String>,
}

/// The form in which objects are kept in a file.
#[derive(Serialize, Deserialize)]
struct Entry {
    kind: String,
    namespace: String,
    name: String,
    #[serde(flatten)]
    stored: Stored,
}

/// What came of manifests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// What was refused. The object in force before, if any, stays in force.
    pub(crate) problems: Vec<Problem>,
    /// What was created, changed and deleted, for people.
    pub(crate) changes: Vec<String>,
    /// Kinds of objects that have no effect here, with how many there are.
    pub(crate) ignored: BTreeMap<String, usize>,
    /// Why all calls are to be refused; none if they are not.
    pub(crate) kill_switch: Option<String>,
    /// Whether all files could be read and parsed.
    pub(crate) is_read: bool,
}

impl Objects {
    /// Reads the objects that a file holds; none if there is no file.
    pub(crate) fn load(file: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", file.display())),
        };
        let entries: Vec<Entry> =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        let known = entries.into_iter().filter_map(|Entry { kind, namespace, name, stored }| {
            let kind = KINDS.iter().find(|known| **known == kind)?;
            Some((Key { kind, namespace, name }, stored))
        });
        Ok(Self { stored: known.collect(), ..Self::default() })
    }

    /// Returns the text that [`Self::load`] reads.
    pub(crate) fn to_text(&self) -> anyhow::Result<Vec<u8>> {
        let entry = |(key, stored): (&Key, &Stored)| {
            let Key { kind, namespace, name } = key.clone();
            Entry { kind: kind.to_owned(), namespace, name, stored: stored.clone() }
        };
        Ok(serde_json::to_vec_pretty(&self.stored.iter().map(entry).collect::<Vec<_>>())?)
    }

    /// Applies manifests. What is not in them any more is deleted. While a document is not known, because its file cannot
    /// be parsed or it does not say correctly what it is, nothing is deleted and the kill switch stays on: the document may
    /// be what is missing.
    pub(crate) fn apply(&mut self, admission: &Admission, manifests: &Manifests, now: Timestamp) -> Applied {
        let is_read = manifests.problems.is_empty();
        let mut applied = Applied { problems: manifests.problems.clone(), is_read, ..Applied::default() };
        let mut declared: BTreeMap<Key, &Document> = BTreeMap::new();
        let mut sources = Sources::default();
        for document in &manifests.documents {
            match identify(admission, document) {
                Ok(Identified::Ours(key)) => {
                    if let Some(first) = declared.get(&key) {
                        let text = format!("{key} is declared twice; the other one is in {}", first.file.display());
                        applied.problems.push(problem(document, &FieldPath::root().child("metadata"), text));
                    } else {
                        declared.insert(key, document);
                    }
                }
                // If there are two, one is enough to stop all calls.
                Ok(Identified::KillSwitch) => {
                    applied.kill_switch = kill_switch(&document.value).or(applied.kill_switch);
                }
                Ok(Identified::Source { kind, namespace, name }) => {
                    if let Err(why) = sources.insert(kind, &namespace, &name, &document.value) {
                        let text = format!("{kind} {namespace}/{name}: {why}");
                        applied.problems.push(problem(document, &FieldPath::root(), text));
                    }
                }
                Ok(Identified::Ignored(kind)) => *applied.ignored.entry(kind).or_default() += 1,
                Err((path, text)) => applied.problems.push(problem(document, &path, text)),
            }
        }
        let is_known = applied.problems.is_empty();
        if !is_known && applied.kill_switch.is_none() {
            applied.kill_switch.clone_from(&self.kill_switch);
        }
        self.kill_switch.clone_from(&applied.kill_switch);
        if is_known {
            self.sources = sources;
        }
        self.stored.retain(|key, _| {
            let stays = declared.contains_key(key) || !is_known;
            if !stays {
                applied.changes.push(format!("{key} deleted"));
            }
            stays
        });
        for kind in KINDS {
            for (key, document) in declared.iter().filter(|(key, _)| key.kind == kind) {
                self.apply_one(admission, key, document, now, &mut applied);
            }
        }
        applied
    }

    fn apply_one(
        &mut self,
        admission: &Admission,
        key: &Key,
        document: &Document,
        now: Timestamp,
        applied: &mut Applied,
    ) {
        let mut wanted = document.value.clone();
        if !key.namespace.is_empty() {
            wanted["metadata"]["namespace"] = json!(key.namespace);
        }
        let before = self.stored.get(key);
        let labels = self.namespace_labels(&key.namespace);
        let object = match admission.admit(&wanted, before.map(|stored| &stored.object), &labels) {
            Ok(object) => object,
            Err(refusal) => {
                for violation in &refusal.violations {
                    let text = format!("{key}: {violation}");
                    applied.problems.push(problem(document, &violation.path, text));
                }
                return;
            }
        };
        let stored = match before {
            Some(before) => Stored {
                generation: before.generation + i64::from(before.object["spec"] != object["spec"]),
                file: document.file.clone(),
                object,
                ..before.clone()
            },
            None => Stored {
                uid: Ulid::generate().to_string().to_lowercase(),
                generation: 1,
                created: now,
                file: document.file.clone(),
                object,
            },
        };
        if before.is_none_or(|before| before.object != stored.object) {
            applied.changes.push(format!("{key} {}", if before.is_some() { "configured" } else { "created" }));
        }
        self.stored.insert(key.clone(), stored);
    }

    /// Returns the labels that the operator gives a namespace in a cluster.
    fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (key, stored) in self.stored.iter().filter(|(key, _)| key.kind == "MCPTenant") {
            let spec = &stored.object["spec"];
            let runtime = spec["runtimeNamespace"].as_str().map_or_else(|| format!("{}-mcp", key.name), str::to_owned);
            if spec["namespace"]["name"] == namespace {
                labels.insert(LABEL_TENANT.to_owned(), key.name.clone());
            }
            if runtime == namespace {
                labels.insert(LABEL_TENANT.to_owned(), key.name.clone());
                labels.insert(LABEL_TENANT_UID.to_owned(), stored.uid.clone());
            }
        }
        labels
    }

    /// Returns the Secrets and ConfigMaps.
    pub(crate) const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Returns the tenants, the oldest first.
    pub(crate) fn tenants(&self) -> Vec<Arc<MCPTenant>> {
        let mut tenants: Vec<Arc<MCPTenant>> = self.of_kind("MCPTenant", "");
        tenants.sort_by_key(|tenant| tenant.metadata.creation_timestamp.clone().map(|time| time.0));
        tenants
    }

    /// Returns the servers in a namespace.
    pub(crate) fn servers(&self, namespace: &str) -> Vec<Arc<MCPServer>> {
        self.of_kind("MCPServer", namespace)
    }

    /// Returns the scopes in a namespace.
    pub(crate) fn scopes(&self, namespace: &str) -> Vec<Arc<MCPScope>> {
        self.of_kind("MCPScope", namespace)
    }

    /// Returns the principals in a namespace.
    pub(crate) fn principals(&self, namespace: &str) -> Vec<Arc<MCPPrincipal>> {
        self.of_kind("MCPPrincipal", namespace)
    }

    /// Returns the budgets in a namespace.
    pub(crate) fn budgets(&self, namespace: &str) -> Vec<Arc<MCPBudget>> {
        self.of_kind("MCPBudget", namespace)
    }

    fn of_kind<K: DeserializeOwned>(&self, kind: &str, namespace: &str) -> Vec<Arc<K>> {
        let wanted = self.stored.iter().filter(|(key, _)| key.kind == kind && key.namespace == namespace);
        // What the schema admits, the type reads: a property test of the API holds them to that.
        wanted.filter_map(|(_, stored)| serde_json::from_value(stored.whole()).ok().map(Arc::new)).collect()
    }
}

impl Stored {
    /// Returns the object with the metadata that an API server adds.
    fn whole(&self) -> Value {
        let mut whole = self.object.clone();
        whole["metadata"]["uid"] = json!(self.uid);
        whole["metadata"]["generation"] = json!(self.generation);
        whole["metadata"]["creationTimestamp"] = json!(self.created.to_string());
        whole
    }
}

enum Identified {
    Ours(Key),
    KillSwitch,
    /// A Secret or ConfigMap.
    Source {
        kind: &'static str,
        namespace: String,
        name: String,
    },
    /// A kind that only a cluster has.
    Ignored(String),
}

/// Finds out what a document is.
fn identify(admission: &Admission, document: &Document) -> Result<Identified, (FieldPath, String)> {
    let text = |field: &str| document.value[field].as_str().unwrap_or_default();
    let at = |field: &str| FieldPath::root().child(field);
    let metadata = &document.value["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err((FieldPath::root(), "apiVersion and kind must be set".to_owned()));
    }
    let namespace = metadata["namespace"].as_str();
    if api_version == "v1" && kind == "List" {
        return Err((at("kind"), "a List is not read; write its items as documents, with --- between them".to_owned()));
    }
    if !api_version.starts_with(&format!("{GROUP}/")) {
        let is_switch = kind == "ConfigMap" && (namespace, name) == (Some(KILL_SWITCH.0), KILL_SWITCH.1);
        if is_switch {
            return Ok(Identified::KillSwitch);
        }
        let source = ["Secret", "ConfigMap"].into_iter().find(|known| api_version == "v1" && *known == kind);
        let Some(kind) = source else { return Ok(Identified::Ignored(kind.to_owned())) };
        if name.is_empty() {
            return Err((at("metadata"), "metadata.name must be set".to_owned()));
        }
        let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned();
        return Ok(Identified::Source { kind, namespace, name: name.to_owned() });
    }
    if api_version != format!("{GROUP}/{VERSION}") {
        return Err((at("apiVersion"), format!("no matches for kind {kind:?} in version {api_version:?}")));
    }
    let known = KINDS.iter().find(|known| **known == kind);
    let (Some(kind), Some(is_namespaced)) = (known, admission.is_namespaced(kind)) else {
        return Err((
            at("kind"),
            format!("no matches for kind {kind:?} in version {api_version:?}, for people to apply"),
        ));
    };
    if name.is_empty() {
        return Err((at("metadata"), "metadata.name must be set".to_owned()));
    }
    let namespace = if is_namespaced { namespace.unwrap_or(DEFAULT_NAMESPACE) } else { "" };
    Ok(Identified::Ours(Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }))
}

/// Returns why the kill switch stops all calls; none if it does not. What is no `ConfigMap` stops them.
fn kill_switch(object: &Value) -> Option<String> {
    serde_json::from_value(object.clone()).map_or_else(|_| Some(String::new()), |map| LocalOperator::stop_reason(&map))
}

fn problem(document: &Document, path: &FieldPath, text: String) -> Problem {
    Problem { file: document.file.clone(), line: document.line(path), text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::manifest::{Contents, parse};
    use super::*;

    const TENANT: &str = "apiVersion: mcp-fleet.dev/v1alpha1\nkind: MCPTenant\nmetadata: {name: acme}\n\
                          spec:\n  namespace: {name: acme}\n";
    const BUDGET: &str = "apiVersion: mcp-fleet.dev/v1alpha1\nkind: MCPBudget\nmetadata: {name: b, namespace: acme}\n\
                          spec:\n  period: Day\n  calls: 5\n";

    fn apply(objects: &mut Objects, files: &[(&str, &str)]) -> Applied {
        let contents: Contents =
            files.iter().map(|(name, text)| (PathBuf::from(name), Ok((*text).to_owned()))).collect();
        objects.apply(&Admission::new().unwrap(), &parse(&contents), Timestamp::UNIX_EPOCH)
    }

    fn calls(objects: &Objects) -> Option<u64> {
        objects.budgets("acme").first()?.spec.calls
    }

    #[test]
    fn an_object_keeps_its_uid_and_counts_its_generations() {
        let mut objects = Objects::default();
        let applied = apply(&mut objects, &[("b.yaml", BUDGET), ("t.yaml", TENANT)]);
        assert_eq!((applied.problems, applied.changes.len()), (vec![], 2));
        let first = objects.budgets("acme")[0].metadata.clone();
        assert!(apply(&mut objects, &[("b.yaml", BUDGET), ("t.yaml", TENANT)]).changes.is_empty());
        let changed = BUDGET.replace("calls: 5", "calls: 6");
        assert_eq!(
            apply(&mut objects, &[("b.yaml", &changed), ("t.yaml", TENANT)]).changes,
            ["MCPBudget acme/b configured"]
        );
        let second = objects.budgets("acme")[0].metadata.clone();
        assert_eq!((first.uid, first.generation), (second.uid, Some(1)));
        assert_eq!(second.generation, Some(2));
        // They survive a restart.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("objects"), objects.to_text().unwrap()).unwrap();
        let again = Objects::load(&folder.path().join("objects")).unwrap();
        assert_eq!(again.stored, objects.stored);
    }

    #[test]
    fn a_bad_edit_is_reported_with_its_line_and_the_object_before_stays() {
        let mut objects = Objects::default();
        apply(&mut objects, &[("b.yaml", BUDGET), ("t.yaml", TENANT)]);
        for (bad, line, expected) in [
            (BUDGET.replace("calls: 5", "call: 5"), 6, "unknown field \"spec.call\""),
            (BUDGET.replace("calls: 5", "calls: -5"), 6, "spec.calls in body should be greater than or equal to 0"),
            (BUDGET.replace("  calls: 5\n", ""), 4, "a budget needs amount or calls"),
            (BUDGET.replace("Day", "Month"), 4, "period cannot be changed"),
            (BUDGET.replace("calls: 5", "calls: ["), 6, ""),
        ] {
            let problems = apply(&mut objects, &[("b.yaml", &bad), ("t.yaml", TENANT)]).problems;
            let [problem] = &problems[..] else { panic!("{problems:?}") };
            assert!(problem.text.contains(expected), "{problem}");
            assert_eq!((problem.line, calls(&objects)), (Some(line), Some(5)), "{problem}");
        }
        assert_eq!(apply(&mut objects, &[("t.yaml", TENANT)]).changes, ["MCPBudget acme/b deleted"]);
        assert_eq!(calls(&objects), None);
    }

    #[test]
    fn nothing_is_deleted_while_a_document_is_not_known() {
        for unknown in [
            BUDGET.replace("v1alpha1", "v1alpha2"),
            BUDGET.replace("MCPBudget", "MCPBudgett"),
            BUDGET.replace("name: b, ", ""),
            BUDGET.replace("calls: 5", "calls: ["),
        ] {
            let mut objects = Objects::default();
            apply(&mut objects, &[("b.yaml", BUDGET), ("t.yaml", TENANT)]);
            // In another file than before.
            let applied = apply(&mut objects, &[("new.yaml", &unknown), ("t.yaml", TENANT)]);
            assert_eq!((applied.problems.len(), applied.changes.len(), calls(&objects)), (1, 0, Some(5)), "{unknown}");
        }
    }

    #[test]
    fn an_object_in_a_namespace_without_a_tenant_is_refused() {
        let mut objects = Objects::default();
        let problems = apply(&mut objects, &[("b.yaml", BUDGET)]).problems;
        assert!(problems[0].text.contains("the namespace acme belongs to no MCPTenant"), "{problems:?}");
        let nowhere = BUDGET.replace(", namespace: acme", "");
        let problems = apply(&mut objects, &[("b.yaml", &nowhere), ("t.yaml", TENANT)]).problems;
        assert!(problems[0].text.contains("the namespace default belongs to no MCPTenant"), "{problems:?}");
    }

    #[test]
    fn what_only_a_cluster_has_is_counted_and_the_kill_switch_is_read() {
        let mut objects = Objects::default();
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: acme}\n";
        let switch = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mcp-fleet-kill-switch, namespace: \
                      mcp-fleet-system}\ndata: {stop: 'true', reason: leak}\n";
        let applied = apply(&mut objects, &[("n.yaml", namespace), ("s.yaml", switch), ("t.yaml", TENANT)]);
        assert_eq!(applied.ignored, BTreeMap::from([("Namespace".to_owned(), 1)]));
        assert_eq!(applied.kill_switch.as_deref(), Some("leak"));
        let off = switch.replace("'true'", "'false'");
        assert_eq!(apply(&mut objects, &[("s.yaml", &off)]).kill_switch, None);
        let garbled = switch.replace("stop:", "halt:");
        assert!(apply(&mut objects, &[("s.yaml", &garbled)]).kill_switch.is_some());
        assert!(
            apply(&mut objects, &[("s.yaml", switch), ("t.yaml", &switch.replace("'true'", "'false'"))])
                .kill_switch
                .is_some()
        );
        // Nobody knows what the file says now.
        let broken = switch.replace("leak", "'leak");
        let applied = apply(&mut objects, &[("s.yaml", &broken)]);
        assert_eq!((applied.kill_switch.as_deref(), applied.is_read), (Some("leak"), false));
        assert_eq!(apply(&mut objects, &[]).kill_switch, None);
        assert_eq!(apply(&mut objects, &[("l.yaml", "apiVersion: v1\nkind: List\nitems: []\n")]).problems.len(), 1);
        let ledger = "apiVersion: mcp-fleet.dev/v1alpha1\nkind: MCPLedger\nmetadata: {name: l}\n";
        assert_eq!(apply(&mut objects, &[("l.yaml", ledger)]).problems.len(), 1);
    }
}
