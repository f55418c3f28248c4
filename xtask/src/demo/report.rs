//! What a step is, and how its outcome is told: while it runs, in the table at the end, and as JSON.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::stage::Stage;

/// One thing that the demo shows.
pub struct Step {
    /// A short name: stable, for the JSON.
    pub name: &'static str,
    /// What is done, for people.
    pub does: &'static str,
    /// Does it, and returns what came back; an error says what should have come back.
    pub run: fn(&mut Stage) -> Result<String>,
}

/// How a step ended.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    ok: bool,
    evidence: String,
    #[serde(skip)]
    seconds: f32,
}

/// How all steps ended so far.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    steps: Vec<Outcome>,
}

impl Report {
    /// Runs a step and prints what it did, what came back, and a tick or a cross. Returns whether it went well.
    pub fn run(&mut self, step: &Step, stage: &mut Stage) -> bool {
        println!("\n▸ {}\n  {}", step.name, step.does);
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let result = (step.run)(stage);
        let seconds = start.elapsed().as_secs_f32();
        let (ok, evidence) = match result {
            Ok(evidence) => (true, evidence),
            Err(error) => (false, format!("{error:#}")),
        };
        for line in evidence.lines() {
            println!("  → {line}");
        }
        println!("  {} {seconds:.1} s", mark(ok));
        self.steps.push(Outcome { name: step.name, ok, evidence, seconds });
        ok
    }

    /// Notes that a step could not be tried.
    pub fn skip(&mut self, step: &Step, why: &str) {
        self.steps.push(Outcome { name: step.name, ok: false, evidence: why.to_owned(), seconds: 0.0 });
    }

    /// Prints the table of all steps.
    pub fn summarise(&self) {
        let width = self.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or_default();
        println!("\n{:=<1$}", "", width + 60);
        for step in &self.steps {
            let line = step.evidence.lines().next().unwrap_or_default();
            let short: String = line.chars().take(90).collect();
            println!("{} {:width$}  {:>6.1} s  {short}", mark(step.ok), step.name, step.seconds);
        }
        println!("{} of {} steps went well", self.steps.len() - self.failed(), self.steps.len());
    }

    /// How many steps failed.
    pub fn failed(&self) -> usize {
        self.steps.iter().filter(|step| !step.ok).count()
    }

    /// Writes all of it as JSON.
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
    fn the_json_holds_name_outcome_and_evidence_of_every_step() -> Result<()> {
        let good = Step { name: "good", does: "works", run: |_| Ok("it came back".into()) };
        let bad = Step { name: "bad", does: "fails", run: |_| bail!("it did not") };
        let (mut report, mut stage) = (Report::default(), Stage::new("none"));
        assert!(report.run(&good, &mut stage));
        assert!(!report.run(&bad, &mut stage));
        report.skip(&good, "not tried");
        assert_eq!(report.failed(), 2);
        let steps = json!([
            {"name": "good", "ok": true, "evidence": "it came back"},
            {"name": "bad", "ok": false, "evidence": "it did not"},
            {"name": "good", "ok": false, "evidence": "not tried"},
        ]);
        assert_eq!(serde_json::to_value(&report)?, json!({"steps": steps}));
        Ok(())
    }
}
