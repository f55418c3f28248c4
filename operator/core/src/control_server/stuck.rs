//! Events about agents that reported that they are stuck.
//!
//! The words of an agent are hostile input for whoever reads the Event: they are shortened, made harmless and marked as
//! the agent's.

use mcp_fleet_control::wire::StuckReport;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::text::neutralise;
use tokio::time::Instant;

use super::alarm::{Alarm, AlarmLimit, Parties};

/// Characters of an agent's words that are shown, and bytes. An Event has room for 1 kB.
const MAX_WORDS: (usize, usize) = (300, 600);

impl AlarmLimit {
    /// Returns the Event for a report, or `None` if the principal is not the tenant's or there were too many Events.
    pub(super) fn stuck(&mut self, now: Instant, policy: &TenantPolicy, report: &StuckReport) -> Option<Alarm> {
        let StuckReport { principal_uid, server, tool, reason } = report;
        let parties = Parties::find(policy, principal_uid, server, tool)?;
        if !self.admits(now, parties.principal) {
            return None;
        }
        let what = parties.tool.map_or_else(String::new, |tool| format!(" with the tool {}", tool.name));
        let note = format!(
            "the agent reported on the server {} that it is stuck{what}, and its calls are paused for some minutes; the \
             annotation mcp-fleet.dev/clear-breakers ends the pause. The agent's own words, unchecked: \"{}\"",
            parties.server.name,
            harmless(reason)
        );
        Some(Alarm { principal: parties.principal(), reason: "AgentStuck", action: "ReportStuck", note })
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
    use super::super::alarm::{INTERVAL, MAX_EVENTS, PERIOD};
    use super::*;
    use crate::testing::{RecordedAlarms, previous};

    fn report(reason: &str) -> StuckReport {
        StuckReport {
            principal_uid: "uid-coder".into(),
            server: "files".into(),
            tool: String::new(),
            reason: reason.into(),
        }
    }

    fn policy() -> TenantPolicy {
        TenantPolicy::clone(&previous().policy)
    }

    #[tokio::test]
    async fn a_report_becomes_an_event_on_the_principal() {
        let event = AlarmLimit::default().stuck(Instant::now(), &policy(), &report("no progress")).unwrap();
        assert!(
            event.note.starts_with("the agent reported on the server files that it is stuck, and"),
            "{}",
            event.note
        );
        assert!(event.note.ends_with("unchecked: \"no progress\""), "{}", event.note);
        assert!(event.note.len() < 1000);
        assert_eq!(event.principal.name.as_deref(), Some("coder"));
        assert_eq!(event.principal.uid.as_deref(), Some("uid-coder"));
        let told = RecordedAlarms::default();
        event.publish(&told).await;
        assert_eq!(*told.0.lock(), [(Some("coder".to_owned()), "AgentStuck".to_owned())]);
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
        let event = AlarmLimit::default().stuck(Instant::now(), &policy(), &report(&"漢".repeat(500))).unwrap();
        assert!(event.note.ends_with('"'), "an Event has room for the longest words and the end of their quotation");
        assert!(event.note.len() < 1000, "{}", event.note.len());
    }

    #[test]
    fn reports_are_limited_and_only_about_the_tenants_own_principals() {
        let (mut limit, now) = (AlarmLimit::default(), Instant::now());
        let stranger = StuckReport { principal_uid: "uid-of-another-tenant".into(), ..report("") };
        assert_eq!(limit.stuck(now, &policy(), &stranger), None);
        assert_eq!(limit.stuck(now, &policy(), &StuckReport { server: "nowhere".into(), ..report("") }), None);
        assert!(limit.stuck(now, &policy(), &report("")).is_some());
        assert_eq!(limit.stuck(now + INTERVAL / 2, &policy(), &report("")), None);
        assert!(limit.stuck(now + INTERVAL, &policy(), &report("")).is_some());
        let mut many = policy();
        for number in 0..100 {
            let uid = format!("uid-{number}");
            many.principals.push(mcp_fleet_policy::model::Principal { uid, ..many.principals[0].clone() });
        }
        let later = now + 10 * PERIOD;
        let events = (0..100).filter_map(|number| {
            limit.stuck(later, &many, &StuckReport { principal_uid: format!("uid-{number}"), ..report("") })
        });
        assert_eq!(events.count(), MAX_EVENTS);
    }
}
