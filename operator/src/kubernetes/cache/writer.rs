//! Applies the events of a watch to a table, and tells which objects changed.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use mcp_fleet_crds::names::{CLEAR_BREAKERS, TOP_UP};

use super::table::{Key, Row, Table, key, version};

/// The only writer of a table.
#[derive(Debug)]
pub(super) struct TableWriter<R> {
    table: Table<R>,
    /// The objects of a full list that has not ended yet.
    listed: HashSet<Key>,
    /// The newest version in that list.
    newest_listed: u64,
}

impl<R: Row> TableWriter<R> {
    /// Returns the writer of a table that is empty.
    pub(super) fn new(table: Table<R>) -> Self {
        Self { table, listed: HashSet::new(), newest_listed: 0 }
    }

    /// Whether the full list that has not ended yet contains an object.
    pub(super) fn lists(&self, key: &Key) -> bool {
        self.listed.contains(key)
    }

    /// Applies an event. Returns the objects whose change matters to others, once the table shows it. After a full list these
    /// are the objects that are gone, and then all others.
    pub(super) fn apply(&mut self, event: Event<R>) -> Vec<R> {
        match event {
            Event::Init => {
                (self.listed, self.newest_listed) = (HashSet::new(), 0);
                vec![]
            }
            Event::InitApply(row) => {
                self.listed.insert(key(row.metadata()));
                self.newest_listed = self.newest_listed.max(version(row.metadata()));
                self.table.put(row);
                vec![]
            }
            Event::InitDone => {
                let gone = self.table.retain(&std::mem::take(&mut self.listed));
                // Not before: a part of a list says nothing about the rest.
                self.table.advance(self.newest_listed);
                gone.into_iter().chain(self.table.all()).collect()
            }
            Event::Apply(row) => {
                let before = self.table.put(row.clone());
                self.table.advance(version(row.metadata()));
                if before.is_some_and(|before| is_equivalent(&before, &row)) {
                    return vec![];
                }
                vec![row]
            }
            Event::Delete(row) => {
                self.table.remove(row.metadata());
                self.table.advance(version(row.metadata()));
                vec![row]
            }
        }
    }
}

/// Whether two versions of an object differ only in what matters to nobody else: that is the status, except a part of it
/// that the kind names. Of a kind without generations, that is not known.
fn is_equivalent<R: Row>(before: &R, after: &R) -> bool {
    has_equivalent_metadata(before.metadata(), after.metadata()) && before.shared_status() == after.shared_status()
}

fn has_equivalent_metadata(before: &ObjectMeta, after: &ObjectMeta) -> bool {
    fn is_equal<T: PartialEq>(objects: [&ObjectMeta; 2], part: impl Fn(&ObjectMeta) -> T) -> bool {
        part(objects[0]) == part(objects[1])
    }
    let objects = [before, after];
    // The only annotations that are part of a policy.
    let annotation = |metadata: &ObjectMeta, name| metadata.annotations.as_ref().and_then(|all| all.get(name).cloned());
    after.generation.is_some()
        && before.generation == after.generation
        && before.uid == after.uid
        && before.finalizers == after.finalizers
        && is_equal(objects, |metadata| metadata.deletion_timestamp.is_some())
        && is_equal(objects, |metadata| [CLEAR_BREAKERS, TOP_UP].map(|name| annotation(metadata, name)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mcp_fleet_core::guard::Guarded;
    use mcp_fleet_crds::{MCPPrincipal, MCPTenant};
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::cache::objects::Objects;

    type Principal = Arc<MCPPrincipal>;

    /// Returns a principal with other metadata than usual.
    fn principal(name: &str, metadata: &Value) -> Principal {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "acme", "uid": format!("uid-{name}"), "generation": 3}, "spec": {},
        });
        for (field, value) in metadata.as_object().unwrap() {
            object["metadata"][field] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn writer() -> (Table<Principal>, TableWriter<Principal>) {
        let table = Table::default();
        (table.clone(), TableWriter::new(table))
    }

    fn names(changed: &[Principal]) -> Vec<&str> {
        let mut names: Vec<_> = changed.iter().filter_map(|object| object.metadata.name.as_deref()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn only_changes_that_matter_to_others_are_returned() {
        let first = json!({"resourceVersion": "5", "finalizers": ["mcp-fleet.dev/teardown"]});
        let changed = |metadata: &Value| {
            let (_, mut writer) = writer();
            assert_eq!(names(&writer.apply(Event::Apply(principal("coder", &first)))), ["coder"]);
            let mut all = first.clone();
            all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
            !writer.apply(Event::Apply(principal("coder", &all))).is_empty()
        };
        assert!(!changed(&json!({"resourceVersion": "6"})), "only the status can have changed");
        assert!(!changed(&json!({"annotations": {"note": "a"}})));
        assert!(changed(&json!({"generation": 4})));
        assert!(changed(&json!({"generation": null})), "a kind without generations");
        assert!(changed(&json!({"uid": "uid-of-another"})));
        assert!(changed(&json!({"finalizers": []})));
        assert!(changed(&json!({"deletionTimestamp": "2026-11-22T12:00:00Z"})));
        assert!(changed(&json!({"annotations": {CLEAR_BREAKERS: "2026-11-22T12:00:00Z"}})));
        assert!(changed(&json!({"annotations": {TOP_UP: "2026-11-26T09:30:00Z calls=1"}})));
    }

    #[test]
    fn of_the_status_of_a_tenant_only_its_public_names_matter_to_others() {
        let (_, mut writer) = Objects::<MCPTenant>::filled();
        let mut changed = |status: &Value| {
            let tenant: MCPTenant = serde_json::from_value(json!({
                "metadata": {"name": "acme", "uid": "u-1", "generation": 1}, "spec": {"namespace": {"name": "acme"}},
                "status": status,
            }))
            .unwrap();
            !writer.apply(Event::Apply(Guarded::Readable(Box::new(tenant)))).is_empty()
        };
        assert!(changed(&json!({})), "it is new");
        assert!(!changed(&json!({"policyGeneration": 7})));
        assert!(changed(&json!({"publicName": "mcp.example.com"})));
        assert!(!changed(&json!({"publicName": "mcp.example.com", "policyGeneration": 8})));
        let former = json!([{"url": "https://mcp.example.com", "acceptedUntil": "2026-11-29T12:00:00Z"}]);
        assert!(changed(&json!({"formerUrls": former})));
        assert!(changed(&json!({})));
    }

    #[test]
    fn a_full_list_returns_what_is_gone_and_everything_else() {
        let ((table, mut writer), none) = (writer(), json!({}));
        let listed = |name| Event::InitApply(principal(name, &json!({"resourceVersion": "7"})));
        writer.apply(Event::Apply(principal("gone", &none)));
        writer.apply(Event::Apply(principal("stays", &none)));
        // A list that does not end removes nothing, and does not count.
        for event in [Event::Init, listed("stays")] {
            assert!(writer.apply(event).is_empty());
        }
        assert_eq!((table.len(), table.position()), (2, 0));
        for event in [Event::Init, listed("new"), listed("stays")] {
            assert!(writer.apply(event).is_empty());
        }
        assert_eq!(names(&writer.apply(Event::InitDone)), ["gone", "new", "stays"]);
        assert_eq!((table.len(), table.position()), (2, 7));
        assert_eq!(names(&writer.apply(Event::Delete(principal("new", &json!({"resourceVersion": "9"}))))), ["new"]);
        assert_eq!((table.len(), table.position()), (1, 9));
    }
}
