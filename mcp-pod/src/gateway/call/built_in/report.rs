//! `fleet_report_stuck`: pauses the caller's own calls, and calls a person.

use std::time::Instant;

use mcp_fleet_policy::built_in::{COOL_DOWN, Subject};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::json::Value;
use mcp_fleet_policy::reason::Reason;
use serde_json::json;
use tracing::info;

use super::Answer;
use crate::gateway::state::{RequestContext, StuckReport};

/// Records a report whose arguments were checked.
pub(super) fn report(context: &RequestContext<'_>, arguments: Option<&Value<'_>>) -> Result<Answer, Denial> {
    let text = |name: &str| arguments.and_then(|arguments| arguments.get(name)).and_then(Value::as_str);
    let (reason, tool) = (text("reason").unwrap_or_default(), text("tool"));
    let server = context.view.server();
    // Only what the caller may call, so that reports are bounded and tell nothing about other tools.
    let access = tool.map(|tool| context.view.tool(tool)).transpose().map_err(|_| {
        let denial = Denial::new(Reason::ArgumentNotAllowed);
        let denial = denial.with_limit("tool must be one of the server's tools that tools/list shows");
        Denial { argument: Some("tool".into()), ..denial }
    })?;
    let name = access.map(|access| access.tool().name.clone());
    let subject =
        name.clone().map_or(Subject::Everything, |tool| Subject::Tool { server_uid: server.uid.clone(), tool });
    let (state, principal) = (context.state, context.caller.principal);
    state.stuck.report(state.tick(), &principal.model().uid, subject);
    let tenant = &context.policy.tenant_policy().tenant;
    state.metrics.count_stuck(tenant, principal.label(), &server.name);
    info!(tenant, principal = principal.label(), server = server.name, "an agent reported that it is stuck");
    state.stuck_reports.add(Instant::now(), &principal.model().uid, || StuckReport {
        principal_uid: principal.model().uid.clone(),
        server: server.name.clone(),
        tool: name.unwrap_or_default(),
        reason: reason.to_owned(),
    });
    let (what, seconds) = (
        tool.map_or_else(|| "All of your calls".into(), |tool| format!("Your calls of `{tool}`")),
        COOL_DOWN.as_secs(),
    );
    let text = format!(
        "Recorded. {what} are refused for {seconds} s, then they pass again. Stop and wait. A person sees your reason as \
         an Event of the MCPPrincipal {}, and can end the pause earlier with the annotation \
         mcp-fleet.dev/clear-breakers. `fleet_status` still answers.",
        principal.label()
    );
    let mut data = json!({"reported": true, "retryAfterMs": seconds * 1000});
    if let Some(tool) = tool {
        data["tool"] = tool.into();
    }
    Ok(Answer { text, data })
}
