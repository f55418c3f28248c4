//! Counts and audits requests that end before they are an admitted call, or are no call. Settlement does it for calls.

use mcp_fleet_policy::reason::{Reason, Stage};
use tracing::warn;

use super::State;
use crate::gateway::audit::{Blocked, Decision, RequestRecord, Subject};
use crate::gateway::log_throttle::LogThrottle;
use crate::gateway::policy::ActivePolicy;
use crate::gateway::request::TOOLS_CALL;

static LOG_THROTTLE: LogThrottle = LogThrottle::new();

impl State {
    /// Counts and audits a request that was allowed and is not a call. One that cannot be audited must not be
    /// answered.
    pub(crate) async fn record_allowed(&self, record: &RequestRecord, policy: &ActivePolicy) -> Result<(), Blocked> {
        let slot = self.audit.reserve().await?;
        let subject = record.subject(Some(policy.tenant_policy()));
        let duration = record.started.elapsed();
        self.metrics.took(&subject, record.revision, "", duration);
        slot.write(&record.line(Decision::Allowed, None, duration), &subject);
        Ok(())
    }

    /// Counts a rejected request, and audits it if `audited`. It stays rejected if the line cannot be written.
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
        self.count_rejected(record, &subject, decision, reason);
        self.metrics.took(&subject, record.revision, reason.as_str(), duration);
        match slot {
            Some(Ok(slot)) => slot.write(&record.line(decision, Some(reason), duration), &subject),
            Some(Err(error)) if LOG_THROTTLE.allows() => {
                warn!(%error, call = %record.call, "failed to audit a rejected request");
            }
            Some(Err(_)) | None => {}
        }
    }

    fn count_rejected(&self, record: &RequestRecord, subject: &Subject<'_>, decision: Decision, reason: Reason) {
        self.metrics.denied(subject, reason);
        if record.method == Ok(TOOLS_CALL) && decision == Decision::Denied {
            self.metrics.denied_call(subject);
        }
    }
}
