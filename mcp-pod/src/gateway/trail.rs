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

use super::audit::{Decision, Entry, Name, Place};
use super::digest::blake3;
use super::enforced::Enforced;
use super::granted::Granted;
use super::state::Active;

/// Up to this many bytes hashing costs less than a task.
const SMALL: usize = 2048;

/// What the line is made of.
#[derive(Debug)]
pub(crate) struct Trail {
    /// Keeps the gateway from ending before the line is handed in.
    pub(crate) active: Active,
    pub(crate) place: Place,
    pub(crate) enforced: Arc<Enforced>,
    pub(crate) granted: Arc<Granted>,
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

impl Trail {
    /// Hands the line in, now or soon.
    pub(crate) fn hand_in(self) {
        let size = self.arguments.len() + self.result.as_ref().map_or(0, Bytes::len);
        match Handle::try_current() {
            Ok(runtime) if size > SMALL => drop(runtime.spawn(async { self.write() })),
            _ => self.write(),
        }
    }

    fn write(self) {
        let Self { active, place, enforced, granted, call, time, duration, decision, reason, cost, arguments, result } =
            self;
        let arguments = enforced.audit_key.digest(&arguments);
        let result = result.map(|result| blake3(&result));
        let facts = &granted.facts;
        let entry = Entry {
            time,
            call,
            tenant: &granted.tenant,
            principal: &facts.principal,
            principal_uid: &granted.principal_uid,
            server: Name::Known(&facts.server),
            tool: Name::Known(&facts.tool),
            class: granted.class.as_str(),
            method: Name::Known("tools/call"),
            arguments: Some(&arguments),
            decision,
            reason,
            generation: granted.generation,
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
