//! The steps of the demo, in order: setup steps, of which each needs the ones before it, and checks.

mod agents;
mod alerts;
mod calls;
mod configuration;
mod credentials;
mod evidence;
mod faults;
mod isolation;
mod limits;
mod money;
mod refusals;
mod setup;

use super::agent::Target;
use super::report::Step;
use super::state::Demo;
use anyhow::Result;

/// Steps that set up the cluster. If one fails, all later steps are skipped.
pub const SETUP: &[Step] = &[
    setup::CLUSTER,
    setup::IMAGES,
    setup::CHARTS,
    setup::QUICKSTART,
    setup::MONITORING,
    setup::WORKSPACE,
    calls::EARLY_TOKEN,
];

/// Steps that replace [`SETUP`] on a cluster that an earlier run kept.
pub const RESUME: &[Step] = &[money::SPENT_BEFORE, calls::EARLY_TOKEN];

/// Steps that check the product. If one fails, the others still run.
pub const CHECKS: &[Step] = &[
    calls::NARROWED_LIST,
    calls::ALLOWED_READ,
    calls::ALLOWED_WRITE,
    calls::SECOND_TENANT,
    refusals::UNDECLARED_TOOL,
    refusals::WRITE_WITHOUT_SCOPE,
    refusals::PATH_UP,
    refusals::PATH_ABSOLUTE,
    refusals::PATH_SYMLINK,
    refusals::UNDECLARED_ARGUMENT,
    refusals::OUTSIDE_ENUM,
    refusals::OUTSIDE_RANGE,
    refusals::CONTRADICTION,
    credentials::NO_TOKEN,
    credentials::OTHER_TENANTS_TOKEN,
    limits::RATE,
    limits::BUDGET,
    agents::LOOP,
    agents::STUCK,
    alerts::FIRING,
    isolation::GATEWAY,
    isolation::TOOL_POD,
    money::SPEND,
    evidence::AUDIT_CHAIN,
    credentials::ROTATION,
    credentials::EXPIRED_TOKEN,
    credentials::REVOKED_TOKEN,
    credentials::POLICY_CHANGE,
    configuration::SECRET,
    faults::NETWORK_POLICY_RESTORED,
    faults::GATEWAY_DELETED,
    faults::GATEWAY_DRAINED,
];

/// Returns a server of acme as target, called from acme's agent pod with the token of one of acme's principals.
fn acme(demo: &Demo, principal: &str, server: &'static str) -> Result<Target> {
    Ok(Target { from: "acme", runtime: "acme-mcp", server, token: Some(demo.token("acme", principal)?) })
}

/// Returns beta's clock as target, called from beta's agent pod with the token of beta's planner.
fn beta(demo: &Demo) -> Result<Target> {
    Ok(Target { from: "beta", runtime: "beta-mcp", server: "clock", token: Some(demo.token("beta", "planner")?) })
}
