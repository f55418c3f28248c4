//! The steps, in their order: those that set the stage, each of which the next ones need, and those that show something.

mod calls;
mod credentials;
mod faults;
mod isolation;
mod limits;
mod money;
mod refusals;
mod setup;

use super::agent::Target;
use super::report::Step;
use super::stage::Stage;
use anyhow::Result;

/// They bring up what the others need; the first that fails ends the demo.
pub const SETUP: &[Step] = &[
    setup::CLUSTER,
    setup::IMAGES,
    setup::CHARTS,
    setup::QUICKSTART,
    setup::MONITORING,
    setup::WORKSPACE,
    calls::EARLY_TOKEN,
];

/// What takes their place on a cluster that an earlier run kept.
pub const RESUME: &[Step] = &[money::BEFORE, calls::EARLY_TOKEN];

/// They show what there is to show; one that fails does not keep the others from running.
pub const SHOW: &[Step] = &[
    calls::NARROWED_LIST,
    calls::ALLOWED_READ,
    calls::ALLOWED_WRITE,
    calls::OTHER_TENANT_CALLS,
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
    isolation::GATEWAY,
    isolation::TOOL_POD,
    money::SPEND,
    credentials::ROTATED,
    credentials::EXPIRED,
    credentials::REVOKED,
    credentials::SUSPENDED,
    faults::POLICY_RETURNS,
    faults::GATEWAY_DELETED,
];

/// A server of acme, called by acme's agent as one of acme's principals.
fn acme(stage: &Stage, principal: &str, server: &'static str) -> Result<Target> {
    Ok(Target { from: "acme", runtime: "acme-mcp", server, token: Some(stage.token("acme", principal)?) })
}

/// The clock of beta, called by beta's agent.
fn beta(stage: &Stage) -> Result<Target> {
    Ok(Target { from: "beta", runtime: "beta-mcp", server: "clock", token: Some(stage.token("beta", "planner")?) })
}
