//! The breakers of all tools of a tenant.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;

use super::{BreakerStatus, Changes, Swept, ToolBreaker};
use crate::tick::Tick;

/// A tool, in the names that identify it and in those of metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolKey {
    /// UID of the server.
    pub server_uid: String,
    /// Name of the server.
    pub server: String,
    /// Name of the tool.
    pub tool: String,
}

/// The breakers of the tools that were called.
#[derive(Debug, Default)]
pub struct Breakers {
    tools: Mutex<HashMap<ToolKey, Arc<ToolBreaker>>>,
}

impl Breakers {
    /// Returns the breakers of a tool.
    pub fn tool(&self, key: ToolKey) -> Arc<ToolBreaker> {
        Arc::clone(self.lock().entry(key).or_default())
    }

    /// Returns the breakers that are not closed for the principal with that UID, also those of tools that it may not call.
    pub fn statuses(&self, now: Tick, principal: &str) -> Vec<(ToolKey, BreakerStatus)> {
        let tools = self.lock();
        let statuses = tools.iter().filter_map(|(key, tool)| Some((key.clone(), tool.status(now, principal)?)));
        statuses.collect()
    }

    /// Closes the own breakers of the principal with that UID on all tools. Calls `cleared` for each one that was not
    /// closed.
    pub fn clear(&self, principal: &str, mut cleared: impl FnMut(&ToolKey, Changes)) {
        for (key, tool) in self.lock().iter() {
            let changes = tool.clear(principal);
            if changes.own.is_some() {
                cleared(key, changes);
            }
        }
    }

    /// Drops what is out of date, and moves breakers whose time is over to half-open. Calls `swept` for each tool whose
    /// shared breaker that concerns. To be called every few seconds.
    pub fn sweep(&self, now: Tick, mut swept: impl FnMut(&ToolKey, Swept)) {
        self.lock().retain(|key, tool| {
            if let Some(what) = tool.sweep(now) {
                swept(key, what);
            }
            // A tool that no policy in use grants, and that has no state, can be created again.
            Arc::strong_count(tool) > 1 || !tool.is_untroubled()
        });
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<ToolKey, Arc<ToolBreaker>>> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
