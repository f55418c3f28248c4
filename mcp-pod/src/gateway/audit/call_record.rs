//! The audit line of a call that was admitted.
//!
//! Digests of large texts are made when the answer is on its way, by a task of the same thread, so that neither this
//! call nor those on other threads wait for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;
use tokio::runtime::Handle;
use ulid::Ulid;

use super::{Decision, Entry, Name, Place};
use crate::gateway::policy::{ActivePolicy, ToolGrant};
use crate::gateway::state::ActiveRequest;

/// Up to this many bytes hashing costs less than a task.
const SMALL: usize = 2048;

/// What the line is made of.
#[derive(Debug)]
pub(crate) struct CallRecord {
    /// Keeps the gateway from ending before the line is handed in.
    pub(crate) active: ActiveRequest,
    pub(crate) place: Place,
    pub(crate) policy: Arc<ActivePolicy>,
    pub(crate) grant: Arc<ToolGrant>,
    pub(crate) call: Ulid,
    pub(crate) time: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) decision: Decision,
    pub(crate) reason: Option<Reason>,
    pub(crate) cost: Micros,
    /// As they were forwarded.
    pub(crate) arguments: Bytes,
    /// As the server wrote it, if it was released.
    pub(crate) result: Option<Bytes>,
}

impl CallRecord {
    /// Hands the line in, now or soon.
    pub(crate) fn hand_in(self) {
        let size = self.arguments.len() + self.result.as_ref().map_or(0, Bytes::len);
        match Handle::try_current() {
            Ok(runtime) if size > SMALL => drop(runtime.spawn(async { self.write() })),
            _ => self.write(),
        }
    }

    fn write(self) {
        let Self { active, place, policy, grant, call, time, duration, decision, reason, cost, arguments, result } =
            self;
        let arguments = policy.audit_key.digest(&arguments);
        let result = result.map(|result| *blake3::hash(&result).as_bytes());
        let facts = &grant.facts;
        let entry = Entry {
            time,
            call,
            tenant: &grant.tenant,
            principal: &facts.principal,
            principal_uid: &grant.principal_uid,
            server: Name::Known(&facts.server),
            tool: Name::Known(&facts.tool),
            class: grant.class.as_str(),
            method: Name::Known("tools/call"),
            arguments: Some(&arguments),
            decision,
            reason,
            generation: grant.generation,
            cost,
            duration,
            result: result.as_ref().map(|digest| &digest[..]),
        };
        let mut line = Vec::with_capacity(768);
        entry.write(&mut line);
        place.write(&line);
        drop(active);
    }
}
