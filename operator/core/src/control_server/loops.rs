//! Events about agents whose calls are refused because they are part of a loop.

use std::time::Duration;

use mcp_fleet_control::wire::LoopReport;
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::model::TenantPolicy;
use tokio::time::Instant;

use super::alarm::{Alarm, AlarmLimit, Parties};

impl AlarmLimit {
    /// Returns the Event for a refused loop, or `None` if it is not about objects of the tenant or there were too many
    /// Events.
    pub(super) fn refused_loop(&mut self, now: Instant, policy: &TenantPolicy, report: &LoopReport) -> Option<Alarm> {
        let LoopReport { principal_uid, server, tool, kind, count, duration_ms, cool_down } = report;
        let parties = Parties::find(policy, principal_uid, server, tool)?;
        let tool = parties.tool?;
        // A later gateway may know more kinds.
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
        if !self.admits(now, parties.principal) {
            return None;
        }
        let stage = if *cool_down {
            "the calls of the loop are refused until its cool-down is over"
        } else {
            "a call was refused because it came before the end of the pause that the agent was told"
        };
        let note = format!(
            "the agent goes round in a loop ({}, {count} times in {} s) with the tool {} of the server {}: {stage}. Other \
             calls of the agent go on. The kinds of loops and their settings are in docs/loops.md; the audit lines with \
             the reason loop_detected name each refused call",
            kind.map_or("of a kind that this version does not know", Kind::as_str),
            Duration::from_millis(*duration_ms).as_secs(),
            tool.name,
            parties.server.name,
        );
        Some(Alarm { principal: parties.principal(), reason: "LoopDetected", action: "RefuseCalls", note })
    }
}

#[cfg(test)]
mod tests {
    use super::super::alarm::{INTERVAL, MAX_EVENTS};
    use super::*;
    use crate::testing::{RecordedAlarms, previous};

    fn report() -> LoopReport {
        LoopReport {
            principal_uid: "uid-coder".into(),
            server: "files".into(),
            tool: "read".into(),
            kind: "retry".into(),
            count: 8,
            duration_ms: 42_900,
            cool_down: true,
        }
    }

    fn policy() -> TenantPolicy {
        TenantPolicy::clone(&previous().policy)
    }

    #[tokio::test]
    async fn a_refused_loop_becomes_an_event_on_the_principal() {
        let alarm = AlarmLimit::default().refused_loop(Instant::now(), &policy(), &report()).unwrap();
        assert!(
            alarm.note.starts_with(
                "the agent goes round in a loop (retry, 8 times in 42 s) with the tool read of the server files: the calls"
            ),
            "{}",
            alarm.note
        );
        assert_eq!(alarm.principal.name.as_deref(), Some("coder"));
        let told = RecordedAlarms::default();
        alarm.publish(&told).await;
        assert_eq!(*told.0.lock(), [(Some("coder".to_owned()), "LoopDetected".to_owned())]);
        let early = LoopReport { cool_down: false, ..report() };
        let alarm = AlarmLimit::default().refused_loop(Instant::now(), &policy(), &early).unwrap();
        assert!(alarm.note.contains("before the end of the pause"), "{}", alarm.note);
    }

    #[test]
    fn a_report_names_only_objects_of_the_tenant_and_known_kinds() {
        let now = Instant::now();
        let mut limit = AlarmLimit::default();
        for foreign in [
            LoopReport { principal_uid: "uid-of-another-tenant".into(), ..report() },
            LoopReport { server: "nowhere".into(), ..report() },
            LoopReport { tool: "<b>click</b>".into(), ..report() },
        ] {
            assert_eq!(limit.refused_loop(now, &policy(), &foreign), None, "{foreign:?}");
        }
        let alarm = limit.refused_loop(now, &policy(), &LoopReport { kind: "<b>".repeat(1000), ..report() }).unwrap();
        assert!(alarm.note.contains("of a kind that this version does not know") && alarm.note.len() < 1000);
    }

    #[test]
    fn events_about_loops_are_limited_by_principal_and_in_total() {
        let (mut limit, now) = (AlarmLimit::default(), Instant::now());
        assert!(limit.refused_loop(now, &policy(), &report()).is_some());
        assert_eq!(limit.refused_loop(now + INTERVAL / 2, &policy(), &report()), None);
        assert!(limit.refused_loop(now + INTERVAL, &policy(), &report()).is_some());
        let mut many = policy();
        for number in 0..100 {
            let uid = format!("uid-{number}");
            many.principals.push(mcp_fleet_policy::model::Principal { uid, ..many.principals[0].clone() });
        }
        let later = now + 20 * INTERVAL;
        let report = |number| LoopReport { principal_uid: format!("uid-{number}"), ..report() };
        assert_eq!((0..100).filter_map(|number| limit.refused_loop(later, &many, &report(number))).count(), MAX_EVENTS);
    }
}
