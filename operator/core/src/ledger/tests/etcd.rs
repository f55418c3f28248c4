//! How much the ledger writes to etcd, for docs/performance.md: the size of every object that is written, as the API
//! server stores it, under a stated load.

use mcp_fleet_crds::MCPLedger;
use serde_json::{Value, json};

use super::super::store::object;
use super::fleet::{Fleet, TENANT};
use super::*;

/// A load on one tenant: a principal calls five tools, each with the same probability, through one of ten gateways.
const GATEWAYS: usize = 10;
const PRINCIPALS: usize = 100;
const TOOLS: usize = 5;
const CALLS_PER_MINUTE: u64 = 1000;
/// How long the load runs before it is measured, and after. By then most items exist.
const WARM_UP: Duration = Duration::from_mins(2);
const MEASURED: Duration = Duration::from_mins(10);

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    objects: u64,
    bytes: u64,
    largest: u64,
}

/// A store that counts what is written.
#[derive(Clone, Default)]
struct Counting {
    memory: Memory,
    written: Arc<Mutex<Written>>,
}

impl Store for Counting {
    async fn read(&self, key: &BookKey) -> Result<Option<StoredBook>, StoreError> {
        self.memory.read(key).await
    }

    async fn write(
        &self,
        key: &BookKey,
        owner: &Owner,
        book: &Book,
        version: Option<&str>,
    ) -> Result<String, StoreError> {
        let bytes = stored_bytes(&object(key, owner, book, version)?);
        let version = self.memory.write(key, owner, book, version).await?;
        let mut written = self.written.lock();
        let Written { objects, bytes: sum, largest } = *written;
        *written = Written { objects: objects + 1, bytes: sum + bytes, largest: largest.max(bytes) };
        Ok(version)
    }

    async fn list(&self, selection: Selection, page: Option<String>) -> Result<Page, StoreError> {
        self.memory.list(selection, page).await
    }

    async fn remove(&self, key: &BookKey, version: &str) -> Result<(), StoreError> {
        self.memory.remove(key, version).await
    }
}

/// Returns the size of an object in etcd: its JSON, with the metadata that the API server adds.
fn stored_bytes(object: &MCPLedger) -> u64 {
    let mut value = serde_json::to_value(object).unwrap();
    let managed = json!([{
        "apiVersion": "mcp-fleet.dev/v1alpha1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": managed(&value["metadata"]["labels"])}, "f:spec": managed(&value["spec"])},
        "manager": "mcp-fleet",
        "operation": "Update",
        "time": "2026-11-22T20:51:57Z",
    }]);
    let added = json!({
        "creationTimestamp": "2026-11-22T20:51:57Z",
        "generation": 10_000,
        "managedFields": managed,
        "namespace": "mcp-fleet-system",
        "uid": TENANT,
    });
    let metadata = value["metadata"].as_object_mut().unwrap();
    metadata.remove("resourceVersion");
    metadata.extend(added.as_object().unwrap().clone());
    u64::try_from(serde_json::to_vec(&value).unwrap().len()).unwrap()
}

/// Returns what `managedFields` has for a value whose lists are atomic.
fn managed(value: &Value) -> Value {
    let Value::Object(members) = value else { return json!({}) };
    let mut fields: serde_json::Map<String, Value> =
        members.iter().map(|(name, value)| (format!("f:{name}"), managed(value))).collect();
    fields.insert(".".into(), json!({}));
    fields.into()
}

fn budgets(own_budgets: bool) -> Vec<Budget> {
    let budget = |name: String, uid: String, units: u64, principals: Option<Vec<String>>| Budget {
        selector: Selector { principals, ..Selector::default() },
        amount: Some(Micros::new(units * 1_000_000)),
        calls: None,
        name,
        uid,
        ..budget(0)
    };
    let own = |number: usize| {
        let uid = format!("{number:08x}-55a0-4f0e-9a0b-0d9d3c5c2f11");
        budget(format!("agent-{number:03}-daily"), uid, 5, Some(vec![agent(number)]))
    };
    let spend_limit = budget("spendLimit".into(), TENANT.into(), 500, None);
    let own = (0..PRINCIPALS).filter(|_| own_budgets).map(own);
    [spend_limit].into_iter().chain(own).collect()
}

fn agent(number: usize) -> String {
    format!("acme/agent-{number:03}")
}

/// Returns what the load writes in [`MEASURED`].
async fn written(own_budgets: bool) -> Written {
    let store = Counting::default();
    let mut fleet = Fleet::new(&store, GATEWAYS, budgets(own_budgets));
    let mut random = fastrand::Rng::with_seed(7);
    let mut measuring = false;
    while fleet.elapsed < WARM_UP + MEASURED {
        if fleet.elapsed >= WARM_UP && !measuring {
            measuring = true;
            *store.written.lock() = Written::default();
        }
        let due = u64::try_from(fleet.elapsed.as_millis()).unwrap() * CALLS_PER_MINUTE / 60_000;
        while fleet.calls < due {
            let number = random.usize(..PRINCIPALS);
            let tool = format!("read_text_file_{}", random.usize(..TOOLS));
            // The home of a principal is one gateway.
            assert!(fleet.call(number % GATEWAYS, &agent(number), &tool).await);
        }
        fleet.step().await;
    }
    *store.written.lock()
}

#[tokio::test(start_paused = true)]
async fn what_is_written_to_etcd_is_what_the_documentation_says() {
    let page = include_str!("../../../../../docs/performance.md");
    for (own_budgets, label) in [(false, "spend limit only"), (true, "and a daily budget for each principal")] {
        let Written { objects, bytes, largest } = written(own_budgets).await;
        let calls = CALLS_PER_MINUTE * MEASURED.as_secs() / 60;
        let per_1000_calls = |total: u64| total * 1000 / calls;
        let found = [per_1000_calls(objects), per_1000_calls(bytes) / 1024, largest / 1024];
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {label} |")));
        println!("{label}: {found:?}");
        let Some(row) = row else { continue };
        let documented: Vec<u64> =
            row.split('|').filter_map(|cell| cell.trim().replace(',', "").parse().ok()).collect();
        assert_eq!(documented.len(), found.len(), "{row}");
        for (documented, found) in documented.iter().zip(found) {
            assert!(documented.abs_diff(found) * 20 <= found.max(20), "documented: {row}; found: {found:?}");
        }
    }
}
