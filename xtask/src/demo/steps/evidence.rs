//! Evidence of what agents did.

use anyhow::{Result, bail};
use mcp_fleet_audit::{Problem, Verifier};

use crate::demo::report::Step;

/// Verifies the audit log of acme's gateway, as it is and without one of its lines.
pub const AUDIT_CHAIN: Step = Step {
    name: "audit log",
    action: "Verify the audit log of acme's gateway, then remove one line from a copy and verify it again.",
    purpose: "Nobody can remove, change or add a line of the audit log without notice.",
    run: |demo| {
        let log = demo.kubectl(&["logs", "-n", "acme-mcp", "deployment/gateway"])?;
        let is_audit_line = |line: &&str| line.starts_with("{\"audit\"");
        let mut lines: Vec<&str> = log.lines().filter(is_audit_line).collect();
        let count = lines.len();
        let problems = verify(&lines)?;
        if count < 3 || !problems.is_empty() {
            bail!("{count} lines have these problems: {problems:?}");
        }
        lines.remove(count / 2);
        match &verify(&lines)?[..] {
            [problem @ Problem::Removed { .. }] => {
                Ok(format!("{count} lines are complete; without one of them: {}", problem.describe(&[])))
            }
            problems => bail!("the missing line should be noticed, but these are the problems: {problems:?}"),
        }
    },
};

fn verify(lines: &[&str]) -> Result<Vec<Problem>> {
    let mut verifier = Verifier::new();
    verifier.read_log(0, lines.join("\n").as_bytes())?;
    Ok(verifier.finish(&[], false).problems)
}
