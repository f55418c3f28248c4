//! Loop detection around a call: refuses a call that continues a loop, and warns the caller of one that begins.

use std::time::Instant;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::engine::ToolAccess;
use mcp_fleet_policy::json::Value;
use mcp_fleet_policy::loops::{CallKey, Evidence, Kind, LoopSettings, Mode, Polls, Settled};
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::tick::Tick;

use super::outcome::Outcome;
use crate::gateway::audit::Subject;
use crate::gateway::metrics::LoopAction;
use crate::gateway::policy::ToolGrant;
use crate::gateway::state::{LoopReport, RequestContext, State};

/// A call whose result the loop detector will see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    key: CallKey,
    admitted: Tick,
    settings: LoopSettings,
    changes: bool,
    polls: Polls,
}

/// Why a call is refused that continues a loop.
#[derive(Debug)]
pub(super) struct Looping {
    pub(super) denial: Denial,
    pub(super) kind: Kind,
}

/// What a caller is told about a loop that begins.
#[derive(Debug)]
pub(super) struct Warning {
    pub(super) text: String,
    /// The same as data, in JSON.
    pub(super) data: Vec<u8>,
}

/// Refuses a call that continues a loop. Returns `None` if loops of the server are not observed.
pub(super) fn watch(
    context: &RequestContext<'_>,
    access: ToolAccess<'_>,
    arguments: Option<&Value<'_>>,
) -> Result<Option<Watched>, Looping> {
    let (state, server, tool) = (context.state, access.server(), access.tool());
    let settings = server.loops;
    if settings.mode == Mode::Disabled {
        return Ok(None);
    }
    let principal = context.caller.principal;
    let key = state.loops.key(&server.uid, &tool.name, arguments);
    let admitted = state.tick();
    if let Err(evidence) = state.loops.check(admitted, &principal.model().uid, settings.mode, key) {
        let tenant = &context.policy.tenant_policy().tenant;
        state.metrics.count_loop(tenant, principal.label(), &server.name, settings.mode, LoopAction::Refused);
        if settings.mode == Mode::Enforce {
            state.loop_reports.add(Instant::now(), &principal.model().uid, || LoopReport {
                principal_uid: principal.model().uid.clone(),
                server: server.name.clone(),
                tool: tool.name.clone(),
                kind: evidence.kind,
                count: evidence.count,
                duration: evidence.duration,
                cool_down: evidence.refused,
            });
            let denial = evidence.denial(&server.name, tool.wire_name());
            return Err(Looping { denial, kind: evidence.kind });
        }
    }
    Ok(Some(Watched { key, admitted, settings, changes: access.class() != Class::Read, polls: tool.polls }))
}

impl Watched {
    /// Shows the detector how the call ended. Returns the loop that it is part of, if there is one.
    pub(super) fn settle(
        &self,
        state: &State,
        subject: &Subject<'_>,
        arguments: &[u8],
        outcome: &Outcome,
    ) -> Option<Evidence> {
        let Self { key, admitted, settings, changes, polls } = *self;
        let result = match outcome {
            Outcome::Answered { answer, tool_error, charge: _ } => {
                state.loops.fingerprint(answer, arguments, *tool_error)
            }
            // Not the caller's doing: to try again is right.
            Outcome::Denied(Reason::AuditUnavailable)
            | Outcome::Failed(Reason::UpstreamUnavailable, _)
            | Outcome::Starting => return None,
            Outcome::Denied(reason) | Outcome::Failed(reason, _) => state.loops.failure(reason.as_str()),
        };
        let settled = Settled { key, result, admitted, changes, polls };
        let evidence = state.loops.settle(state.tick(), &subject.principal_uid, &settings, &settled)?;
        let action = if evidence.wait.is_zero() { LoopAction::Warned } else { LoopAction::Slowed };
        state.metrics.count_loop(&subject.tenant, &subject.principal, subject.server.known(), settings.mode, action);
        Some(evidence)
    }

    /// Returns what the caller is told about a loop; nothing in the mode Monitor.
    pub(super) fn warning(&self, grant: &ToolGrant, evidence: &Evidence) -> Option<Warning> {
        if self.settings.mode != Mode::Enforce {
            return None;
        }
        let (server, tool) = (grant.subject.server.known(), &*grant.wire_name);
        let mut data = Vec::new();
        evidence.denial(server, tool).write_data(&mut data);
        Some(Warning { text: evidence.warning(server, tool), data })
    }
}
