//! What agents reported themselves: their own calls are refused until a cool-down is over or a person clears it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;

use crate::denial::Denial;
use crate::reason::Reason;
use crate::tick::Tick;

/// How long calls are refused after a report.
pub const COOL_DOWN: Duration = Duration::from_mins(5);

/// What an agent is stuck with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// All of its calls.
    Everything,
    /// The calls of one tool.
    Tool {
        /// UID of the server.
        server_uid: String,
        /// Name of the tool.
        tool: String,
    },
}

/// A report in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// What the agent is stuck with.
    pub subject: Subject,
    /// Time until calls pass again.
    pub retry_after: Duration,
}

/// The reports in force.
///
/// There are at most as many for one principal as there are tools that it may call, because only those can be reported.
#[derive(Debug, Default)]
pub struct StuckReports {
    /// Whether there may be any. Without, calls take no lock.
    any: AtomicBool,
    /// Ends of the cool-downs, by UID of the principal.
    by_principal: Mutex<HashMap<String, HashMap<Subject, Tick>>>,
}

impl StuckReports {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<Subject, Tick>>> {
        self.by_principal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses calls of the principal with that UID from now on, for [`COOL_DOWN`].
    pub fn report(&self, now: Tick, principal: &str, subject: Subject) {
        let mut reports = self.lock();
        reports.entry(principal.to_owned()).or_default().insert(subject, now.plus(COOL_DOWN));
        self.any.store(true, Ordering::Release);
    }

    /// Checks that a call is not covered by a report of its principal.
    pub fn check(&self, now: Tick, principal: &str, server_uid: &str, tool: &str) -> Result<(), Denial> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let reports = self.lock();
        let Some(reports) = reports.get(principal) else { return Ok(()) };
        let covers = |subject: &Subject| match subject {
            Subject::Everything => true,
            Subject::Tool { server_uid: server, tool: reported } => server == server_uid && reported == tool,
        };
        let until = reports.iter().filter(|(subject, until)| covers(subject) && now < **until).map(|(_, until)| *until);
        let Some(until) = until.max() else { return Ok(()) };
        let denial = Denial::new(Reason::ReportedStuck).with_limit("this principal reported that it is stuck");
        Err(Denial { retry_after: Some(until.since(now)), ..denial })
    }

    /// Returns the reports of a principal that are in force.
    pub fn of(&self, now: Tick, principal: &str) -> Vec<Reported> {
        let reports = self.lock();
        let reports = reports.get(principal).into_iter().flatten().filter(|(_, until)| now < **until);
        let reported =
            |(subject, until): (&Subject, &Tick)| Reported { subject: subject.clone(), retry_after: until.since(now) };
        reports.map(reported).collect()
    }

    /// Ends the reports of a principal. Returns whether there were any.
    pub fn clear(&self, principal: &str) -> bool {
        self.lock().remove(principal).is_some()
    }

    /// Drops reports whose cool-down is over. To be called every few seconds.
    pub fn sweep(&self, now: Tick) {
        let mut reports = self.lock();
        reports.retain(|_, reports| {
            reports.retain(|_, until| now < *until);
            !reports.is_empty()
        });
        self.any.store(!reports.is_empty(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::ZERO.plus(Duration::from_secs(seconds))
    }

    fn tool(name: &str) -> Subject {
        Subject::Tool { server_uid: "s".into(), tool: name.into() }
    }

    #[test]
    fn a_report_refuses_calls_of_its_principal_until_the_cool_down_is_over() {
        let reports = StuckReports::default();
        reports.report(at(0), "a", Subject::Everything);
        let denial = reports.check(at(60), "a", "s", "read").unwrap_err();
        assert_eq!((denial.reason, denial.retry_after), (Reason::ReportedStuck, Some(Duration::from_secs(240))));
        assert_eq!(reports.check(at(60), "b", "s", "read"), Ok(()));
        assert_eq!(reports.check(at(300), "a", "s", "read"), Ok(()));
        reports.sweep(at(300));
        assert!(reports.lock().is_empty() && !reports.any.load(Ordering::Acquire));
    }

    #[test]
    fn a_report_about_a_tool_leaves_the_others() {
        let reports = StuckReports::default();
        reports.report(at(0), "a", tool("read"));
        reports.report(at(10), "a", tool("read"));
        assert!(reports.check(at(301), "a", "s", "read").is_err(), "the later report counts");
        assert_eq!(reports.check(at(1), "a", "s", "write"), Ok(()));
        assert_eq!(reports.check(at(1), "a", "other", "read"), Ok(()));
        assert_eq!(reports.of(at(1), "a").len(), 1);
        assert!(reports.clear("a") && !reports.clear("a"));
        assert_eq!(reports.check(at(1), "a", "s", "read"), Ok(()));
    }
}
