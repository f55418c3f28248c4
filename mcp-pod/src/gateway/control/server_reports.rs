//! What one control stream says about the reports of tool servers: which ones the operator keeps, which ones this gateway
//! needs, and which ones the operator should keep.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use mcp_fleet_control::wire::{self, from_gateway};

use super::intake::Intake;
use crate::gateway::upstream::ReportDigest;

/// What is known on one stream.
#[derive(Debug, Default)]
pub(super) struct ServerReports {
    /// Digests of the reports that the operator keeps, by UID of the server. `None` until the operator has said so: one that
    /// keeps none never does.
    kept: Option<HashMap<String, ReportDigest>>,
    /// UIDs of the servers whose kept reports were requested.
    requested: HashSet<String>,
}

impl ServerReports {
    /// Notes which reports the operator keeps.
    pub(super) fn learn(&mut self, message: wire::KeptServerReports) {
        let kept = message.kept.into_iter().filter_map(|it| Some((it.server_uid, it.digest.try_into().ok()?)));
        self.kept.get_or_insert_default().extend(kept);
    }

    /// Returns the messages to send now. There is at most one report among them, because a report is large, and other
    /// messages must not wait behind many.
    pub(super) fn messages(&mut self, intake: &Intake, now: Instant) -> Vec<from_gateway::Message> {
        let Some(kept) = &self.kept else { return Vec::new() };
        let mut wanted = Vec::new();
        if kept.len() > self.requested.len() {
            wanted = intake.servers_without_report();
            wanted.retain(|uid| kept.contains_key(uid) && self.requested.insert(uid.clone()));
        }
        let wanted = (!wanted.is_empty())
            .then_some(from_gateway::Message::WantedServerReports(wire::WantedServerReports { server_uids: wanted }));
        let seen = intake.take_report_to_keep(kept, now).map(|(server_uid, report)| {
            let (digest, report) = (report.digest.to_vec(), report.compressed);
            from_gateway::Message::SeenServerReport(wire::SeenServerReport { server_uid, digest, report })
        });
        wanted.into_iter().chain(seen).collect()
    }
}
