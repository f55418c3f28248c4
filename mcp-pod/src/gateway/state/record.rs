//! Counts and audits all requests except admitted calls; settlement does that for those.

use mcp_fleet_policy::reason::{Reason, Stage};
use tracing::warn;

use super::State;
use crate::gateway::audit::{Decision, LineSlot, RequestRecord};
use crate::gateway::log_throttle::LogThrottle;
use crate::gateway::policy::ActivePolicy;
use crate::gateway::request::TOOLS_CALL;

static LOG_THROTTLE: LogThrottle = LogThrottle::new();

impl State {
    /// Counts and audits a request that was allowed and is not a call.
    pub(crate) fn record_allowed(&self, record: &RequestRecord, policy: &ActivePolicy, slot: LineSlot) {
        let subject = record.subject(Some(policy.tenant_policy()));
        let duration = record.started.elapsed();
        self.metrics.observe_duration(&subject, record.revision, "", duration);
        slot.write(&record.line(Decision::Allowed, None, duration), &subject);
    }

    /// Counts a rejected request, and audits it if `audited`. A failure to audit it is only logged.
    pub(crate) async fn record_rejected(
        &self,
        record: &RequestRecord,
        policy: Option<&ActivePolicy>,
        reason: Reason,
        audited: bool,
    ) {
        let slot = if audited { Some(self.audit.reserve().await) } else { None };
        let subject = record.subject(policy.map(ActivePolicy::tenant_policy));
        let decision = if reason.stage() == Stage::Forward { Decision::Failed } else { Decision::Denied };
        let duration = record.started.elapsed();
        self.metrics.count_denial(&subject, reason);
        if record.method == Ok(TOOLS_CALL) && decision == Decision::Denied {
            self.metrics.count_denied_call(&subject);
        }
        self.metrics.observe_duration(&subject, record.revision, reason.as_str(), duration);
        match slot {
            Some(Ok(slot)) => slot.write(&record.line(decision, Some(reason), duration), &subject),
            Some(Err(error)) if LOG_THROTTLE.allows() => {
                warn!(%error, call = %record.call, "failed to audit a rejected request");
            }
            Some(Err(_)) | None => {}
        }
    }
}
