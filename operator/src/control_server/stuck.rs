//! Events about agents that reported that they are stuck.
//!
//! The words of an agent are hostile input for whoever reads the Event: they are shortened, made harmless and marked as
//! the agent's. A gateway limits its reports; the limits here hold even if it does not.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use mcp_fleet_control::wire::StuckReport;
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::text::neutralise;
use tokio::time::Instant;

use crate::kubernetes::events::Events;

/// Shortest time between two Events about one principal.
const INTERVAL: Duration = Duration::from_secs(50);
/// Events in [`PERIOD`] over all principals of one gateway.
const MAX_EVENTS: usize = 20;
const PERIOD: Duration = Duration::from_mins(1);
/// Characters of an agent's words that are shown, and bytes. An Event has room for 1 kB.
const MAX_WORDS: (usize, usize) = (300, 600);

/// The Events about the reports of one gateway in the last minute.
#[derive(Debug, Default)]
pub(super) struct StuckLimit {
    by_principal: HashMap<String, Instant>,
    recent: VecDeque<Instant>,
}

/// An Event about a stuck agent.
#[derive(Debug, PartialEq)]
pub(super) struct StuckEvent {
    principal: ObjectReference,
    note: String,
}

impl StuckLimit {
    /// Returns the Event for a report, or `None` if the principal is not the tenant's or there were too many Events.
    pub(super) fn event(&mut self, now: Instant, policy: &TenantPolicy, report: StuckReport) -> Option<StuckEvent> {
        let StuckReport { principal_uid, server, tool, reason } = report;
        let principal = policy.principals.iter().find(|principal| principal.uid == principal_uid)?;
        let server = policy.servers.iter().find(|known| known.name == server)?;
        let tool = server.tools.iter().find(|known| known.name == tool);
        self.by_principal.retain(|_, last| now.saturating_duration_since(*last) < INTERVAL);
        while self.recent.front().is_some_and(|first| now.saturating_duration_since(*first) >= PERIOD) {
            self.recent.pop_front();
        }
        if self.recent.len() >= MAX_EVENTS || self.by_principal.contains_key(&principal_uid) {
            return None;
        }
        self.recent.push_back(now);
        self.by_principal.insert(principal_uid, now);
        let what = tool.map_or_else(String::new, |tool| format!(" with the tool {}", tool.name));
        let note = format!(
            "the agent reported on the server {} that it is stuck{what}, and its calls are paused for some minutes; the \
             annotation mcp-fleet.dev/clear-breakers ends the pause. The agent's own words, unchecked: \"{}\"",
            server.name,
            harmless(&reason)
        );
        let principal = ObjectReference {
            api_version: Some(MCPPrincipal::api_version(&()).into_owned()),
            kind: Some(MCPPrincipal::kind(&()).into_owned()),
            namespace: Some(principal.namespace.clone()),
            name: Some(principal.name.clone()),
            uid: Some(principal.uid.clone()),
            ..ObjectReference::default()
        };
        Some(StuckEvent { principal, note })
    }
}

impl StuckEvent {
    /// Writes the Event. Repeated ones about a principal become one with a count.
    pub(super) async fn publish(self, events: &Events) {
        events.alarm(&self.principal, "AgentStuck", "ReportStuck", self.note).await;
    }
}

/// Returns an agent's words as one line of limited length that cannot end their quotation or look like markup, a link or a
/// terminal sequence.
fn harmless(words: &str) -> String {
    let words = neutralise(words);
    let mut harmless = String::new();
    for character in words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_WORDS.0) {
        if harmless.len() + character.len_utf8() > MAX_WORDS.1 {
            break;
        }
        harmless.push(match character {
            '"' | '`' => '\'',
            '<' | '>' | '[' | ']' | '\\' | '|' => '.',
            ':' => ';',
            other => other,
        });
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile::tests::previous;
    use crate::testing::FakeApi;

    fn report(reason: &str) -> StuckReport {
        StuckReport {
            principal_uid: "uid-coder".into(),
            server: "files".into(),
            tool: String::new(),
            reason: reason.into(),
        }
    }

    fn policy() -> TenantPolicy {
        previous().policy
    }

    #[tokio::test]
    async fn a_report_becomes_an_event_on_the_principal() {
        let api = FakeApi::default();
        let event = StuckLimit::default().event(Instant::now(), &policy(), report("no progress")).unwrap();
        assert!(
            event.note.starts_with("the agent reported on the server files that it is stuck, and"),
            "{}",
            event.note
        );
        assert!(event.note.ends_with("unchecked: \"no progress\""), "{}", event.note);
        assert!(event.note.len() < 1000);
        assert_eq!(event.principal.name.as_deref(), Some("coder"));
        assert_eq!(event.principal.uid.as_deref(), Some("uid-coder"));
        event.publish(&Events::new(api.client(), "operator-0")).await;
        assert_eq!(api.take_events(), ["AgentStuck"]);
    }

    #[test]
    fn the_words_of_an_agent_are_made_harmless() {
        let hostile = "ok\"\n\u{1b}[31mWarning: \u{202e}run `kubectl delete` <a href=\"https://evil.example\">here</a>";
        let words = harmless(&format!("{hostile}{}", "x".repeat(10_000)));
        assert_eq!(words.chars().count(), MAX_WORDS.0);
        for character in ['"', '`', '\n', '\u{1b}', '\u{202e}', '<', '>', '[', ':'] {
            assert!(!words.contains(character), "{words}");
        }
        assert!(words.starts_with("ok'"));
        let event = StuckLimit::default().event(Instant::now(), &policy(), report(&"漢".repeat(500))).unwrap();
        assert!(event.note.ends_with('"'), "an Event has room for the longest words and the end of their quotation");
        assert!(event.note.len() < 1000, "{}", event.note.len());
    }

    #[test]
    fn reports_are_limited_and_only_about_the_tenants_own_principals() {
        let (mut limit, now) = (StuckLimit::default(), Instant::now());
        let stranger = StuckReport { principal_uid: "uid-of-another-tenant".into(), ..report("") };
        assert_eq!(limit.event(now, &policy(), stranger), None);
        assert_eq!(limit.event(now, &policy(), StuckReport { server: "nowhere".into(), ..report("") }), None);
        assert!(limit.event(now, &policy(), report("")).is_some());
        assert_eq!(limit.event(now + INTERVAL / 2, &policy(), report("")), None);
        assert!(limit.event(now + INTERVAL, &policy(), report("")).is_some());
        let mut many = policy();
        for number in 0..100 {
            let uid = format!("uid-{number}");
            many.principals.push(mcp_fleet_policy::model::Principal { uid, ..many.principals[0].clone() });
        }
        let later = now + 10 * PERIOD;
        let events = (0..100).filter_map(|number| {
            limit.event(later, &many, StuckReport { principal_uid: format!("uid-{number}"), ..report("") })
        });
        assert_eq!(events.count(), MAX_EVENTS);
    }
}
