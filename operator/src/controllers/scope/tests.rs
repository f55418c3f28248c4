//! Reconciles against a fake API server.

use std::collections::BTreeMap;

use mcp_fleet_core::shared_state::verdict::{PolicyEntry, Verdict};

use super::*;
use crate::controllers::tenant::tests::tenant;
use crate::testing::TestContext;

const SCOPE: &str = "/apis/mcp-fleet.dev/v1alpha1/namespaces/acme/mcpscopes/files-read";

fn scope() -> MCPScope {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPScope",
        "metadata": {"name": "files-read", "namespace": "acme", "uid": "s-1", "generation": 1},
        "spec": {"serverRef": {"name": "files"}, "classes": ["Read"]},
    }))
    .unwrap()
}

#[tokio::test]
async fn a_scope_in_an_unclaimed_namespace_only_gets_a_status() {
    let test = TestContext::new();
    assert_eq!(test.reconcile::<Scopes>(&scope()).await, ["PUT mcpscopes/files-read/status"]);
    assert_eq!(test.condition(SCOPE, "Ready").1, "NamespaceUnclaimed");
}

#[tokio::test]
async fn a_scope_whose_server_is_missing_is_stalled() {
    let mut test = TestContext::new();
    test.add_tenant(&tenant());
    let verdict = Verdict {
        ok: false,
        reason: ConditionReason::ServerNotFound,
        message: "server files does not exist".into(),
        object_generation: 1,
    };
    let entry = PolicyEntry { verdict, since: 1, has_address: false };
    let entries = BTreeMap::from([((Kind::Scope, "s-1".to_owned()), entry)]);
    test.ctx.shared_state.set_published("u-1", 1, "digest".into(), entries.into());
    assert_eq!(test.reconcile::<Scopes>(&scope()).await, ["PUT mcpscopes/files-read/status"]);
    assert_eq!(
        (test.condition(SCOPE, "ResolvedRefs").1, test.condition(SCOPE, "Stalled").1),
        ("ServerNotFound".into(), "ServerNotFound".into())
    );
}
