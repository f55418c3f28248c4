//! Tests of the control stream against a fake operator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod homes;
mod kill_switch;
mod leases;
mod names;
mod operator;
mod policy;
mod server_reports;
mod stream;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_policy::model::{StaleAfter, TenantLimits, TenantPolicy};
use mcp_fleet_policy::units::Bytes as Size;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Control;
use crate::gateway::Dialer;
use crate::gateway::audit::Audit;
use crate::gateway::budget::Leases;
use crate::gateway::memory::Memory;
use crate::gateway::state::State;
use crate::tls::PublicNames;
use operator::{Operator, TEST_TIMEOUT};

/// A running control stream of a gateway. Ends on drop.
struct Gateway {
    state: Arc<State>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _end: DropGuard,
}

/// Starts the control stream of a gateway that dials `operator`.
fn start(operator: &Operator) -> Gateway {
    start_with(operator, Path::new("/nonexistent"))
}

/// The same, with the certificates of public names in this folder.
fn start_with(operator: &Operator, public: &Path) -> Gateway {
    let mut control = Control::new(&operator.args, &operator.ca_file());
    // On a busy machine, the operator may not answer as soon as calls need it.
    control.leases = Leases::new(TEST_TIMEOUT);
    let state = state_with(control.leases(), public);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(control.run(state.clone(), shutdown.clone()));
    Gateway { state, shutdown: shutdown.clone(), task, _end: shutdown.drop_guard() }
}

fn state(leases: Arc<Leases>) -> Arc<State> {
    state_with(leases, Path::new("/nonexistent"))
}

fn state_with(leases: Arc<Leases>, public: &Path) -> Arc<State> {
    let audit = Audit::start(std::io::sink(), TEST_TIMEOUT).unwrap();
    let memory = Memory::new(Size::new(64 << 20));
    State::new(leases, Dialer::Plain, audit, memory, PublicNames::new(public)).unwrap()
}

fn policy(generation: u64) -> TenantPolicy {
    TenantPolicy {
        tenant: "acme".into(),
        tenant_uid: "0b0e".into(),
        generation,
        suspended: false,
        audience: "https://gateway.acme-mcp.svc".into(),
        other_audiences: vec![],
        issuer: "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/0b0e".into(),
        keys: vec![],
        session_key: vec![1; 32],
        traffic: TenantLimits::default(),
        built_in_tools: true,
        allowed_origins: vec![],
        stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
        currency: None,
        servers: vec![],
        principals: vec![],
        budgets: vec![],
    }
}

/// Waits until `condition` is true. `what` describes it in the failure message.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < TEST_TIMEOUT, "did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
