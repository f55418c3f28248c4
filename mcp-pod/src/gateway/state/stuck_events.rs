//! Reports of stuck agents that the operator has to tell people about.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shortest time between two events of one principal. The report itself applies at once, each time.
const INTERVAL: Duration = Duration::from_mins(1);
/// Events that wait for a control stream. Later ones are dropped: an event is for people, and nothing depends on it.
const CAPACITY: usize = 256;

/// A report for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StuckEvent {
    pub(crate) principal_uid: String,
    /// Name of the server on whose endpoint the agent reported.
    pub(crate) server: String,
    /// Tool of that server that the agent is stuck with; empty if it is stuck with everything.
    pub(crate) tool: String,
    /// The words of the agent.
    pub(crate) reason: String,
}

/// The reports that the operator does not have yet.
#[derive(Debug, Default)]
pub(crate) struct StuckEvents(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<StuckEvent>,
    /// When the last event of each principal was added.
    last: HashMap<String, Instant>,
}

impl StuckEvents {
    /// Adds an event, unless its principal had one a short time ago or too many wait.
    pub(crate) fn add(&self, now: Instant, event: StuckEvent) {
        let mut waiting = self.0.lock();
        waiting.last.retain(|_, last| now.saturating_duration_since(*last) < INTERVAL);
        if waiting.events.len() < CAPACITY && !waiting.last.contains_key(&event.principal_uid) {
            waiting.last.insert(event.principal_uid.clone(), now);
            waiting.events.push_back(event);
        }
    }

    /// Takes all events out.
    pub(crate) fn take(&self) -> Vec<StuckEvent> {
        self.0.lock().events.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_limited_by_principal_and_in_total() {
        let (events, now) = (StuckEvents::default(), Instant::now());
        let event = |principal: usize| StuckEvent {
            principal_uid: principal.to_string(),
            server: "files".into(),
            tool: String::new(),
            reason: "no progress".into(),
        };
        events.add(now, event(1));
        events.add(now + INTERVAL / 2, event(1));
        assert_eq!(events.take(), [event(1)]);
        events.add(now + INTERVAL / 2, event(1));
        assert_eq!(events.take(), []);
        events.add(now + INTERVAL, event(1));
        assert_eq!(events.take(), [event(1)]);
        (0..1000).for_each(|principal| events.add(now + 3 * INTERVAL, event(principal)));
        assert_eq!(events.take().len(), CAPACITY);
        assert_eq!(events.0.lock().last.len(), CAPACITY);
    }
}
