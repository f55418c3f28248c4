//! What is known of a request so far, for the line and the counters of its refusal.
//!
//! Names of API objects are looked up only when they are written; on the way of a call that is allowed this costs
//! nothing.

use std::time::Instant;

use jiff::Timestamp;
use mcp_fleet_policy::denial::echo;
use mcp_fleet_policy::reason::{Reason, Stage};
use mcp_fleet_policy::units::Micros;
use tracing::warn;
use ulid::Ulid;

use super::{Blocked, Decision, Entry, Name};
use crate::gateway::log_throttle::LogThrottle;
use crate::gateway::metrics::{Labels, Operation};
use crate::gateway::policy::ActivePolicy;
use crate::gateway::request::{CALL, Revision};
use crate::gateway::state::State;

/// When the log last heard of a refusal without a line.
static LOG_THROTTLE: LogThrottle = LogThrottle::new();

/// What is known of a request.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    pub(crate) started: Instant,
    pub(crate) call: Ulid,
    path: String,
    /// Index of the principal, once it is authenticated.
    pub(crate) principal: Option<usize>,
    /// Index of the server, once it is known to be the principal's.
    pub(crate) server: Option<usize>,
    /// The method that is offered, or what was sent.
    pub(crate) method: Result<&'static str, String>,
    pub(crate) revision: Option<Revision>,
    /// The tool that was called, as it was sent.
    pub(crate) tool: Option<String>,
    pub(crate) arguments: Option<[u8; 32]>,
}

impl RequestRecord {
    pub(crate) fn new(started: Instant, call: Ulid, path: &str) -> Self {
        Self {
            started,
            call,
            path: echo(path).into_owned(),
            principal: None,
            server: None,
            method: Ok(""),
            revision: None,
            tool: None,
            arguments: None,
        }
    }

    /// Counts a refusal, and audits it if it is to have a line. The request is refused whether or not that can be written.
    pub(crate) async fn refused(&self, state: &State, policy: Option<&ActivePolicy>, reason: Reason, audited: bool) {
        let decision = if reason.stage() == Stage::Forward { Decision::Failed } else { Decision::Denied };
        match self.write(state, policy, decision, Some(reason), audited).await {
            Err(error) if LOG_THROTTLE.allows() => warn!(%error, call = %self.call, "a refusal could not be audited"),
            Ok(()) | Err(_) => {}
        }
    }

    /// Counts and audits a request that was allowed and is not a call. One that cannot be audited is not allowed.
    pub(crate) async fn allowed(&self, state: &State, policy: &ActivePolicy) -> Result<(), Blocked> {
        self.write(state, Some(policy), Decision::Allowed, None, true).await
    }

    async fn write(
        &self,
        state: &State,
        policy: Option<&ActivePolicy>,
        decision: Decision,
        reason: Option<Reason>,
        audited: bool,
    ) -> Result<(), Blocked> {
        let place = if audited { state.audit.place().await.map(Some) } else { Ok(None) };
        if decision == Decision::Allowed
            && let Err(blocked) = &place
        {
            return Err(*blocked);
        }
        let policy = policy.map(ActivePolicy::tenant_policy);
        let tenant = policy.map_or("", |policy| &policy.tenant);
        let principal = policy.zip(self.principal).and_then(|(policy, index)| policy.principals.get(index));
        let server = policy.zip(self.server).and_then(|(policy, index)| policy.servers.get(index));
        let tool = server
            .zip(self.tool.as_deref())
            .and_then(|(server, name)| server.tools.iter().find(|tool| tool.name == name));
        let label =
            principal.map_or_else(String::new, |principal| format!("{}/{}", principal.namespace, principal.name));
        let server_label = server.map_or("", |server| &server.name);
        let tool_label = tool.map_or("", |tool| &tool.name);
        let duration = self.started.elapsed();

        if let Some(reason) = reason {
            state.metrics.denied(tenant, server_label, reason);
        }
        if self.method == Ok(CALL) && decision == Decision::Denied {
            let labels = Labels { tenant, principal: &label, server: server_label, tool: tool_label };
            state.metrics.denied_call(labels);
        }
        if let Ok(method) = self.method
            && !method.is_empty()
        {
            let error = reason.map_or("", Reason::as_str);
            let operation =
                Operation { server: server_label, method, tool: tool_label, revision: self.revision, error };
            state.metrics.took(operation, duration);
        }

        let Some(place) = place? else { return Ok(()) };
        let entry = Entry {
            time: Timestamp::now(),
            call: self.call,
            tenant,
            principal: &label,
            principal_uid: principal.map_or("", |principal| &principal.uid),
            server: server.map_or(Name::Sent(&self.path), |server| Name::Known(&server.name)),
            tool: match (tool, &self.tool) {
                (Some(tool), _) => Name::Known(&tool.name),
                (None, Some(sent)) => Name::Sent(sent),
                (None, None) => Name::Known(""),
            },
            class: tool.map_or("", |tool| tool.class.as_str()),
            method: match &self.method {
                Ok(known) => Name::Known(known),
                Err(sent) => Name::Sent(sent),
            },
            arguments: self.arguments.as_ref().map(|digest| &digest[..]),
            decision,
            reason,
            generation: policy.map_or(0, |policy| policy.generation),
            cost: Micros::ZERO,
            duration,
            result: None,
        };
        let mut line = Vec::with_capacity(512);
        entry.write(&mut line);
        place.write(&line);
        Ok(())
    }
}
