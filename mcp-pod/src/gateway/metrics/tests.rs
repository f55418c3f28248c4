//! The metrics of a gateway. The tests of the chart's rules and dashboards read the snapshot.

use std::sync::Arc;

use mcp_fleet_admin::testing::metrics_without_values;
use mcp_fleet_homes::view::Member;
use mcp_fleet_policy::breaker::{BreakerState, Changes};
use mcp_fleet_policy::units::Bytes as Size;

use super::*;
use crate::gateway::audit::Name;
use crate::gateway::state::Homes;

#[test]
fn a_gateway_exports_the_metrics_that_the_chart_uses() {
    let homes = Arc::new(Homes::default());
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["mcp.example.com".to_owned()]).unwrap();
    std::fs::write(dir.path().join("tls.crt"), pair.cert.pem()).unwrap();
    std::fs::write(dir.path().join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    homes.connect(1, Member { pod_uid: "pod-1".into(), epoch: "1".into() });
    let names = PublicNames::new(dir.path());
    names.set_names(vec!["mcp.example.com".into()]);
    let metrics = Metrics::new(&Memory::new(Size::new(64 << 20)), &names, move || homes.lease_left()).unwrap();
    let subject = Subject {
        tenant: "acme".into(),
        generation: 7,
        principal: "acme/coder-0".into(),
        principal_uid: "p-1".into(),
        server: Name::Known("files-0".into()),
        tool: Name::Known("read".into()),
        class: None,
        method: Name::Known("tools/call".into()),
    };
    let tool = ToolMetrics::new(&metrics, &subject, Some("USD"));
    tool.add_spend("0.001".parse().unwrap());
    let (revision, second) = (Revision::V2025_11_25, Duration::from_secs(1));
    tool.observe_duration(&metrics, &subject, revision, second);
    for error in [ErrorType::Refused, ErrorType::Timeout, ErrorType::Transport, ErrorType::Tool, ErrorType::Cancelled] {
        metrics.observe_duration(&subject, Some(revision), Some(error), second);
    }
    for reason in Reason::ALL {
        metrics.count_denial(&subject, *reason);
    }
    metrics.set_generation("acme", 7);
    metrics.count_loop("acme", "acme/coder-0", "files-0", Mode::Enforce, LoopAction::Refused);
    metrics.count_stuck("acme", "acme/coder-0", "files-0");
    metrics.set_upstreams("acme", [("files-0", Some(true))].into_iter());
    metrics.breakers.count(&subject, Changes { own: None, shared: Some(BreakerState::Open) });
    let text = metrics_without_values(metrics.registry()).unwrap();
    insta::with_settings!({snapshot_path => "../../../../tests/monitoring/metrics", prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!("gateway", text);
    });
}
