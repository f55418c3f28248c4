//! Reports about agents, from which the operator makes Events for people.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use mcp_fleet_policy::loops::Kind;
use parking_lot::Mutex;

/// Shortest time between two reports of one sort about one principal.
const INTERVAL: Duration = Duration::from_mins(1);
/// Reports that wait for a control stream. Later ones are dropped: they are for people, and nothing depends on them.
const CAPACITY: usize = 256;

/// An agent has reported that it is stuck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StuckReport {
    pub(crate) principal_uid: String,
    /// Name of the server on whose endpoint the agent reported.
    pub(crate) server: String,
    /// Tool of that server that the agent is stuck with; empty if it is stuck with everything.
    pub(crate) tool: String,
    /// The words of the agent.
    pub(crate) reason: String,
}

/// A call was refused because it is part of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoopReport {
    pub(crate) principal_uid: String,
    pub(crate) server: String,
    pub(crate) tool: String,
    pub(crate) kind: Kind,
    /// How often.
    pub(crate) count: u32,
    /// For how long.
    pub(crate) duration: Duration,
    /// Whether the loop is refused for its cool-down, and not only slowed down.
    pub(crate) cool_down: bool,
}

/// The reports of one sort that the operator does not have yet.
#[derive(Debug)]
pub(crate) struct Reports<R>(Mutex<Waiting<R>>);

#[derive(Debug)]
struct Waiting<R> {
    reports: VecDeque<R>,
    /// When the last report about each principal was added.
    last: HashMap<String, Instant>,
}

impl<R> Default for Reports<R> {
    fn default() -> Self {
        Self(Mutex::new(Waiting { reports: VecDeque::new(), last: HashMap::new() }))
    }
}

impl<R> Reports<R> {
    /// Adds a report about the principal with this UID, unless there was one a short time ago or too many wait.
    pub(crate) fn add(&self, now: Instant, principal: &str, report: impl FnOnce() -> R) {
        let mut waiting = self.0.lock();
        let recent = |last: &Instant| now.saturating_duration_since(*last) < INTERVAL;
        if waiting.last.get(principal).is_some_and(recent) || waiting.reports.len() >= CAPACITY {
            return;
        }
        waiting.last.retain(|_, last| recent(last));
        waiting.last.insert(principal.to_owned(), now);
        waiting.reports.push_back(report());
    }

    /// Takes all reports out.
    pub(crate) fn take(&self) -> Vec<R> {
        self.0.lock().reports.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_limited_by_principal_and_in_total() {
        let (reports, now) = (Reports::default(), Instant::now());
        let add = |now, principal: usize| reports.add(now, &principal.to_string(), || principal);
        add(now, 1);
        add(now + INTERVAL / 2, 1);
        assert_eq!(reports.take(), [1]);
        add(now + INTERVAL / 2, 1);
        assert!(reports.take().is_empty());
        add(now + INTERVAL, 1);
        assert_eq!(reports.take(), [1]);
        (0..1000).for_each(|principal| add(now + 3 * INTERVAL, principal));
        assert_eq!(reports.take().len(), CAPACITY);
        assert_eq!(reports.0.lock().last.len(), CAPACITY);
    }
}
