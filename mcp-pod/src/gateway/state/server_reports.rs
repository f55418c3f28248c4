//! Which reports of tool servers the operator should keep, and which this gateway needs from it.

use std::collections::HashMap;
use std::time::Instant;

use super::State;
use crate::gateway::upstream::{KeptError, Report, ReportDigest, SeenReport};

impl State {
    /// Returns a report that the operator should keep and may be sent now, with the UID of its server. `kept` are the digests
    /// of those that the operator keeps, by UID.
    pub(crate) fn take_report_to_keep(
        &self,
        kept: &HashMap<String, ReportDigest>,
        now: Instant,
    ) -> Option<(String, SeenReport)> {
        let policy = self.active_policy()?;
        policy
            .upstreams_by_uid()
            .find_map(|(uid, upstream)| Some((uid.to_owned(), upstream.take_report_to_keep(kept.get(uid), now)?)))
    }

    /// Returns the UIDs of the servers of which nothing is known beyond their catalogue.
    pub(crate) fn servers_without_report(&self) -> Vec<String> {
        let Some(policy) = self.active_policy() else { return Vec::new() };
        let unknown = policy.upstreams_by_uid().filter(|(_, upstream)| upstream.lacks_report());
        unknown.map(|(uid, _)| uid.to_owned()).collect()
    }

    /// Uses a report that the operator kept until its server gives one. Ignores it if the server has given one already, or
    /// is not in the policy.
    pub(crate) fn use_kept_report(&self, uid: &str, digest: &[u8], compressed: &[u8]) -> Result<(), KeptError> {
        let policy = self.active_policy();
        let upstream = policy.as_ref().and_then(|policy| policy.upstream_of(uid));
        if let Some(upstream) = upstream.filter(|upstream| upstream.lacks_report()) {
            upstream.use_kept(Report::from_kept(digest, compressed)?);
        }
        Ok(())
    }
}
