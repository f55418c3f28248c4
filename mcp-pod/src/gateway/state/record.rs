//! Counts and audits all requests except admitted calls; settlement does that for those.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::reason::{Reason, Stage};
use tracing::warn;

use super::State;
use crate::gateway::audit::{Blocked, Decision, Flood, Line, LineSlot, RequestRecord, SharedLine};
use crate::gateway::policy::ActivePolicy;
use crate::gateway::request::TOOLS_CALL;
use crate::gateway::respond::Trail;

/// Time between two lines that the rejections of a flood share.
const FLOOD_INTERVAL: Duration = Duration::from_secs(1);

impl State {
    /// Counts and audits a request that was allowed and is not a call of a server's tool.
    pub(crate) fn record_allowed(&self, record: &RequestRecord, policy: &ActivePolicy, slot: LineSlot) {
        let subject = record.subject(Some(policy.tenant_policy()));
        let duration = record.started.elapsed();
        if record.built_in.is_some() {
            self.metrics.count_call(&subject, Decision::Allowed);
        }
        self.metrics.observe_duration(&subject, record.revision, None, duration);
        slot.write(&record.line(Decision::Allowed, None, duration), &subject);
    }

    /// Counts and audits a rejected request. A failure to audit it is only logged.
    pub(crate) async fn record_rejected(
        self: &Arc<Self>,
        record: &RequestRecord,
        policy: Option<&ActivePolicy>,
        reason: Reason,
        trail: Trail,
    ) {
        let subject = record.subject(policy.map(ActivePolicy::tenant_policy));
        let decision = if reason.stage() == Stage::Forward { Decision::Failed } else { Decision::Denied };
        self.metrics.count_denial(&subject, reason);
        if record.method == Ok(TOOLS_CALL) && decision == Decision::Denied {
            self.metrics.count_call(&subject, Decision::Denied);
        }
        self.metrics.observe_duration(&subject, record.revision, Some(reason.into()), record.started.elapsed());
        match trail {
            Trail::Own => {}
            Trail::Shared => {
                let Some(flood) = self.floods.count(reason, &subject) else { return };
                tokio::spawn(Arc::clone(self).record_flood(flood));
            }
            Trail::Absent => return,
        }
        match self.audit.reserve().await {
            Ok(slot) => slot.write(&record.line(decision, Some(reason), record.started.elapsed()), &subject),
            Err(error) => {
                let (call, trace_id) = (record.call, record.trace.trace_id());
                warn!(%error, %call, %trace_id, "failed to audit a rejected request");
            }
        }
    }

    /// Writes the lines that rejections share, one a second until no more rejections come.
    async fn record_flood(self: Arc<Self>, flood: Flood) {
        loop {
            tokio::time::sleep(FLOOD_INTERVAL).await;
            let Some(line) = self.floods.take(&flood) else { return };
            let count = line.count;
            if self.write_shared(line).await.is_err() {
                self.floods.put_back(&flood, count);
            }
        }
    }

    /// Writes the lines of all rejections that have none. Called once, when the gateway ends.
    pub(crate) async fn record_floods(&self) {
        for line in self.floods.take_all() {
            if let Err(error) = self.write_shared(line).await {
                warn!(%error, "failed to audit rejected requests");
            }
        }
    }

    async fn write_shared(&self, line: SharedLine) -> Result<(), Blocked> {
        let SharedLine { reason, count, subject } = line;
        self.audit.reserve().await?.write(&Line::suppressed(reason, count), &subject);
        Ok(())
    }
}
