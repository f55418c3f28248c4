//! The steps of the demo and their outcomes: printed while they run, in a table at the end, and as JSON.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::state::Demo;

/// One step of the demo.
pub struct Step {
    /// Short name. The JSON uses it, so it must not change.
    pub name: &'static str,
    /// What the step does, as a sentence.
    pub action: &'static str,
    /// Why the step matters, as a sentence.
    pub purpose: &'static str,
    /// Performs the step and returns what was observed. The error says what was expected instead.
    pub run: fn(&mut Demo) -> Result<String>,
}

/// The outcome of one step.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    ok: bool,
    evidence: String,
    #[serde(skip)]
    seconds: f32,
}

/// The outcomes of all steps so far.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    steps: Vec<Outcome>,
    /// Number of steps in this run of the demo.
    #[serde(skip)]
    total: usize,
}

impl Report {
    /// Returns an empty report for a demo of `total` steps.
    pub fn new(total: usize) -> Self {
        Self { steps: Vec::new(), total }
    }

    /// Runs a step. Prints what it does and why, what was observed, and whether it passed, which is also returned.
    pub fn run(&mut self, step: &Step, demo: &mut Demo) -> bool {
        println!("\n▸ [{}/{}] {}", self.steps.len() + 1, self.total, step.name);
        println!("  {}\n  Why: {}", step.action, step.purpose);
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let result = (step.run)(demo);
        let seconds = start.elapsed().as_secs_f32();
        let (ok, evidence) = match result {
            Ok(evidence) => (true, evidence),
            Err(error) => (false, format!("{error:#}")),
        };
        for line in evidence.lines() {
            println!("  → {line}");
        }
        println!("  {} {} after {seconds:.1} s", mark(ok), if ok { "passed" } else { "FAILED" });
        self.steps.push(Outcome { name: step.name, ok, evidence, seconds });
        ok
    }

    /// Records that a step was not run. It counts as failed.
    pub fn skip(&mut self, step: &Step, reason: &str) {
        self.steps.push(Outcome { name: step.name, ok: false, evidence: reason.to_owned(), seconds: 0.0 });
    }

    /// Prints the table of all steps.
    pub fn print_summary(&self) {
        let width = self.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or_default();
        println!("\n{:=<1$}", "", width + 60);
        for step in &self.steps {
            let line = step.evidence.lines().next().unwrap_or_default();
            let short: String = line.chars().take(90).collect();
            println!("{} {:width$}  {:>6.1} s  {short}", mark(step.ok), step.name, step.seconds);
        }
        println!("{} of {} steps passed", self.steps.len() - self.failed(), self.steps.len());
    }

    /// Returns the number of failed steps.
    pub fn failed(&self) -> usize {
        self.steps.iter().filter(|step| !step.ok).count()
    }

    /// Writes all outcomes to `path` as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))
    }
}

const fn mark(ok: bool) -> char {
    if ok { '✔' } else { '✘' }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_json_contains_name_outcome_and_evidence_of_every_step() -> Result<()> {
        let good = Step { name: "good", action: "Works.", purpose: "To pass.", run: |_| Ok("it worked".into()) };
        let bad = Step { name: "bad", action: "Fails.", purpose: "To fail.", run: |_| bail!("it failed") };
        let (mut report, mut demo) = (Report::new(3), Demo::new("none"));
        assert!(report.run(&good, &mut demo));
        assert!(!report.run(&bad, &mut demo));
        report.skip(&good, "not run");
        assert_eq!(report.failed(), 2);
        let steps = json!([
            {"name": "good", "ok": true, "evidence": "it worked"},
            {"name": "bad", "ok": false, "evidence": "it failed"},
            {"name": "good", "ok": false, "evidence": "not run"},
        ]);
        assert_eq!(serde_json::to_value(&report)?, json!({"steps": steps}));
        Ok(())
    }
}
