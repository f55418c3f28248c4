//! The fleet's kill switch: while it is on, every tool call of every tenant is refused.
//!
//! It is not part of a policy, so that it works when no policy can be published. The operator reads it, the control stream
//! carries it, and a gateway keeps the newest state that the operator has read.

use std::time::Instant;

use crate::denial::Denial;
use crate::reason::Reason;
use crate::text::neutralise;

/// Length in characters to which the reason of a stop is cut.
pub const MAX_REASON: usize = 200;

/// The kill switch as one gateway knows it.
#[derive(Debug, Default)]
pub struct KillSwitch {
    /// When the operator read the state that is known.
    read: Option<Instant>,
    stopped: Option<String>,
}

impl KillSwitch {
    /// Records what the operator read at `read`: the reason of the stop, or `None` if calls are allowed. Returns whether
    /// that changes anything.
    ///
    /// What was read earlier than the known state is ignored: an operator that has lost its leadership without noticing
    /// must not lift a stop that it never saw. Of two states of the same time, the stop holds.
    pub fn observe(&mut self, read: Instant, stopped: Option<&str>) -> bool {
        if self.read.is_some_and(|known| read < known || (read == known && stopped.is_none())) {
            return false;
        }
        self.read = Some(read);
        let stopped = stopped.map(shown_reason);
        let changes = self.stopped != stopped;
        self.stopped = stopped;
        changes
    }

    /// Returns the denial of every call while the switch is on.
    pub fn denial(&self) -> Option<Denial> {
        let reason = self.stopped.as_deref()?;
        let denial = Denial::new(Reason::FleetStopped);
        let why = if reason.is_empty() { String::new() } else { format!(": \"{reason}\"") };
        Some(denial.with_limit(format!("the platform team has stopped all tool calls{why}")))
    }
}

/// Returns the reason of a stop as agents and people see it: one line of at most [`MAX_REASON`] characters, without
/// characters that hide text or control a terminal, and without double quotes, because it is shown between them.
pub fn shown_reason(reason: &str) -> String {
    let words: Vec<&str> = reason.split_whitespace().collect();
    neutralise(&words.join(" ")).chars().take(MAX_REASON).map(|it| if it == '"' { '\'' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_state_holds_and_a_stop_wins_a_tie() {
        let (mut switch, start) = (KillSwitch::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!switch.observe(at(5), None), "off is the state at the start");
        assert_eq!(switch.denial(), None);
        assert!(switch.observe(at(5), Some("a")));
        assert!(!switch.observe(at(5), None), "a stop wins a tie");
        assert!(!switch.observe(at(4), None), "an older state lifts the stop");
        assert!(switch.denial().is_some());
        assert!(!switch.observe(at(6), Some("a")));
        assert!(switch.observe(at(7), Some("b")), "another reason is a change");
        assert!(switch.observe(at(8), None));
        assert!(!switch.observe(at(7), Some("a")), "an older stop comes back");
        assert_eq!(switch.denial(), None);
    }

    #[test]
    fn the_reason_is_one_harmless_line() {
        let hostile = "deploy\n\nfailed \u{1b}[31m\u{202e}say \"yes\" now ";
        assert_eq!(shown_reason(hostile), "deploy failed \u{fffd}[31m\u{fffd}say 'yes' now");
        assert_eq!(shown_reason(&"漢".repeat(1000)).chars().count(), MAX_REASON);
    }

    #[test]
    fn the_denial_shows_the_reason_if_there_is_one() {
        let mut switch = KillSwitch::default();
        let now = Instant::now();
        switch.observe(now, Some("leak of credentials"));
        let denial = switch.denial().unwrap();
        assert_eq!(denial.reason, Reason::FleetStopped);
        let text = denial.text();
        let start = "Refused (fleet_stopped). The platform team has stopped all tool calls: \"leak of credentials\". ";
        assert!(text.starts_with(start), "{text}");
        switch.observe(now, Some(" "));
        let text = switch.denial().unwrap().text();
        assert!(text.starts_with("Refused (fleet_stopped). The platform team has stopped all tool calls. "), "{text}");
    }
}
