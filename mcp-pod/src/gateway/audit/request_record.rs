//! What is known about a request so far, for its audit line and its counters.
//!
//! Names of API objects are looked up only when the line is written; a call that is allowed pays nothing for them.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use mcp_fleet_policy::built_in::BuiltIn;
use mcp_fleet_policy::denial::escape_name;
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;
use ulid::Ulid;

use super::{Decision, Line, Name, Subject};
use crate::gateway::request::Revision;
use crate::gateway::trace::{TraceContext, TraceParent};

/// Name of the server of the built-in tools, in audit lines and metrics. No server has a name with a dot.
const BUILT_IN_SERVER: &str = "mcp-fleet.dev";

/// Facts about a request, added as its stages find them.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    pub(crate) started: Instant,
    pub(crate) call: Ulid,
    /// The span of the request, in the trace that its headers or its message name.
    pub(crate) trace: TraceContext,
    path: String,
    /// Index of the principal, once it is authenticated.
    pub(crate) principal: Option<usize>,
    /// Index of the server, once it is known to be one of the principal's.
    pub(crate) server: Option<usize>,
    /// Method if it is offered, else the text that was sent.
    pub(crate) method: Result<&'static str, String>,
    pub(crate) revision: Option<Revision>,
    /// The called tool, if it is a built-in one.
    pub(crate) built_in: Option<BuiltIn>,
    /// Name of the called tool, as it was sent.
    pub(crate) tool: Option<String>,
    /// Keyed digest of the arguments.
    pub(crate) arguments: Option<[u8; 32]>,
    /// The kind of loop that the call continues.
    pub(crate) looping: Option<Kind>,
    /// Whether the request is a call that took from the limits on calls.
    pub(crate) admitted: bool,
}

impl RequestRecord {
    pub(crate) fn new(started: Instant, call: Ulid, path: &str, parent: Option<TraceParent>) -> Self {
        Self {
            started,
            call,
            trace: TraceContext::new(call, parent),
            path: escape_name(path).into_owned(),
            principal: None,
            server: None,
            method: Ok(""),
            revision: None,
            built_in: None,
            tool: None,
            arguments: None,
            looping: None,
            admitted: false,
        }
    }

    /// Looks up the names of the subject in the policy.
    pub(crate) fn subject<'a>(&'a self, policy: Option<&'a TenantPolicy>) -> Subject<'a> {
        let principal = policy.zip(self.principal).and_then(|(policy, index)| policy.principals.get(index));
        let server = policy.zip(self.server).and_then(|(policy, index)| policy.servers.get(index));
        let tool = server.zip(self.tool.as_deref()).and_then(|(server, name)| server.tool_on_wire(name));
        Subject {
            tenant: policy.map_or("", |policy| &policy.tenant).into(),
            generation: policy.map_or(0, |policy| policy.generation),
            principal: principal
                .map_or(Cow::Borrowed(""), |principal| format!("{}/{}", principal.namespace, principal.name).into()),
            principal_uid: principal.map_or("", |principal| &principal.uid).into(),
            server: match (self.built_in, server) {
                (Some(_), _) => Name::Known(BUILT_IN_SERVER.into()),
                (None, Some(server)) => Name::Known(server.name.as_str().into()),
                (None, None) => Name::Sent(&self.path),
            },
            tool: match (self.built_in, tool, &self.tool) {
                (Some(tool), ..) => Name::Known(tool.as_str().into()),
                (None, Some(tool), _) => Name::Known(tool.name.as_str().into()),
                (None, None, Some(sent)) => Name::Sent(sent),
                (None, None, None) => Name::Known("".into()),
            },
            class: tool.map(|tool| tool.class),
            method: match &self.method {
                Ok(known) => Name::Known((*known).into()),
                Err(sent) => Name::Sent(sent),
            },
        }
    }

    /// Returns the audit line of the request, for a decision made just now.
    pub(crate) fn line(&self, decision: Decision, reason: Option<Reason>, duration: Duration) -> Line {
        let mut line = Line::new(self.call, self.trace, decision, reason, Micros::ZERO, duration);
        line.arguments = self.arguments;
        line.looping = self.looping;
        line
    }
}
