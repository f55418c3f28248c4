//! How often the detector is right.

use std::fmt;

use super::replay::Replayed;
use super::trace::{Label, Trace};

/// Figures of a set of traces. A loop is detected by the first refusal in it.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    loops: usize,
    work: usize,
    /// Loops that were detected.
    detected: usize,
    /// Traces of either label with a refusal of an honest call.
    wrong: usize,
    /// For each detected loop, the calls that were made in it before the first refusal.
    until: Vec<usize>,
    honest_calls: usize,
    false_stops: usize,
    false_warnings: usize,
    loop_warnings: usize,
}

impl Figures {
    /// Adds a trace.
    pub fn add(&mut self, trace: &Trace, replayed: &Replayed) {
        let honest = trace.honest();
        let false_stops = replayed.refused.iter().filter(|(index, _)| *index < honest).count();
        let false_warnings = replayed.warned.iter().filter(|index| **index < honest).count();
        self.honest_calls += honest;
        self.false_stops += false_stops;
        self.false_warnings += false_warnings;
        self.loop_warnings += replayed.warned.len() - false_warnings;
        self.wrong += usize::from(false_stops > 0);
        match trace.head.label {
            Label::Work => self.work += 1,
            Label::Loop => {
                self.loops += 1;
                if let Some((index, _)) = replayed.refused.iter().find(|(index, _)| *index >= honest) {
                    self.detected += 1;
                    self.until.push(index - honest);
                }
            }
        }
    }

    /// Returns the detected loops among everything that was stopped.
    pub fn precision(&self) -> f64 {
        share(self.detected, self.detected + self.wrong)
    }

    /// Returns the detected loops among all loops.
    pub fn recall(&self) -> f64 {
        share(self.detected, self.loops)
    }

    /// Returns the refused calls for every thousand calls that belong to no loop.
    pub fn false_stops_per_thousand(&self) -> f64 {
        if self.honest_calls == 0 { 0.0 } else { 1000.0 * share(self.false_stops, self.honest_calls) }
    }

    /// Returns the number of calls of a loop before its first refusal that `percent` of the detected loops do not exceed.
    pub fn until_detection(&self, percent: usize) -> Option<usize> {
        let mut until = self.until.clone();
        until.sort_unstable();
        let rank = (until.len() * percent).div_ceil(100);
        until.get(rank.saturating_sub(1)).copied()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of traces and calls are small")]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = |percent| self.until_detection(percent).map_or_else(|| "-".to_owned(), |calls| calls.to_string());
        let Self { loops, work, detected, honest_calls, false_stops, false_warnings, loop_warnings, .. } = self;
        writeln!(f, "| figure | value |")?;
        writeln!(f, "|---|---|")?;
        writeln!(f, "| traces | {loops} loops, {work} of work |")?;
        writeln!(f, "| precision | {:.3} |", self.precision())?;
        writeln!(f, "| recall | {:.3} ({detected} of {loops}) |", self.recall())?;
        writeln!(f, "| calls of a loop before its first refusal | median {}, p90 {} |", until(50), until(90))?;
        writeln!(
            f,
            "| false stops per 1,000 honest calls | {:.2} ({false_stops} of {honest_calls}) |",
            self.false_stops_per_thousand()
        )?;
        write!(f, "| warnings | {loop_warnings} in loops, {false_warnings} on honest calls |")
    }
}
