//! The metrics of a leader with a tenant. The tests of the chart's rules and dashboards read the snapshot.

use std::time::Duration;

use mcp_fleet_admin::testing::metrics_without_values;
use mcp_fleet_audit::{Digest, Head};
use ulid::Ulid;

use super::fleet::TENANT_UID;
use super::statuses::enforced;
use crate::audit::Tenant;
use crate::kubernetes::requests;
use crate::rollout;
use crate::run::register_collectors;

#[tokio::test(start_paused = true)]
async fn a_leader_exports_the_metrics_that_the_chart_uses() {
    let mut fleet = enforced(1).await;
    fleet.spend("spendLimit", "acme/coder-0").await;
    let ctx = fleet.context();
    register_collectors(ctx).unwrap();
    let head = Head { chain: Ulid::from_parts(1, 0), sequence: 1, digest: Digest::of(b"line") };
    ctx.audit.note(Tenant { name: "acme".into(), uid: TENANT_UID.into() }, "gateway-1", head);
    let leads = async { tokio::join!(rollout::run(ctx), ctx.audit.keep()) };
    let ended = tokio::time::timeout(Duration::from_mins(5), leads).await;
    assert!(ended.is_err(), "what a leader does never ends");
    ctx.metrics.reconciles.with_label_values(&["tenant", "error"]).inc();
    // The counter of the process also has what other tests have requested.
    let requests = requests::new_counter().unwrap();
    requests.with_label_values(&["update", "mcpservers/status"]).inc();
    ctx.metrics.registry.register(Box::new(requests)).unwrap();
    let text = metrics_without_values(&ctx.metrics.registry).unwrap();
    insta::with_settings!({snapshot_path => "../../../tests/monitoring/metrics", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("operator", text);
    });
}
