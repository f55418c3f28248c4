//! `mcp-fleet audit export`: audit lines in the formats of security tools. docs/audit.md maps each field.

mod cef;
mod line;
mod ocsf;
mod severity;
#[cfg(test)]
mod tests;

use std::io::{BufRead, BufWriter, Write, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use mcp_fleet_audit::{Log, LogLine};
use serde::Deserialize;

use super::open;
use line::Line;

/// `mcp-fleet audit export …`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Logs of gateways, as `kubectl logs` prints them or as the container runtime stores them; standard input if there are
    /// none. Lines that are not audit lines are skipped.
    logs: Vec<PathBuf>,
    /// The format to write, one event a line.
    #[arg(long, value_enum)]
    format: Format,
}

/// A format of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Open Cybersecurity Schema Framework: class API Activity (6003), in JSON.
    Ocsf,
    /// Common Event Format.
    Cef,
}

/// Writes the events of all logs to standard output. Audit lines that cannot be read are reported on standard error and
/// make the exit code 1.
pub(crate) fn run(Arguments { logs, format }: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(stdout().lock());
    let mut broken = 0;
    let mut report = |name: &str, number: u64, cause: &str| {
        broken += 1;
        eprintln!("PROBLEM {name}:{number}: an audit line cannot be exported: {cause}");
    };
    if logs.is_empty() {
        export(stdin().lock(), *format, &mut out, |number, cause| report("standard input", number, cause))
            .context("failed to export standard input")?;
    }
    for path in logs {
        let name = path.display().to_string();
        open(path)
            .and_then(|log| export(log, *format, &mut out, |number, cause| report(&name, number, cause)))
            .with_context(|| format!("failed to export {name}"))?;
    }
    out.flush().context("failed to write the events")?;
    Ok(ExitCode::from(u8::from(broken > 0)))
}

/// Writes the events of one log. `report` is called with the number of each audit line that cannot be read, and why. Memory
/// is bounded by the longest line.
fn export(
    log: impl BufRead,
    format: Format,
    out: &mut impl Write,
    mut report: impl FnMut(u64, &str),
) -> std::io::Result<()> {
    let mut log = Log::new(log);
    while let Some(LogLine { number, text, is_cut }) = log.next_line()? {
        let Some(line) = audit_line(text) else { continue };
        let event = if is_cut { Err("it is too long".to_owned()) } else { line };
        match event {
            Ok(line) => {
                match format {
                    Format::Ocsf => ocsf::write(&line, out)?,
                    Format::Cef => cef::write(&line, out)?,
                }
                out.write_all(b"\n")?;
            }
            Err(cause) => report(number, &cause),
        }
    }
    Ok(())
}

/// Parses an audit line. Returns `None` if the line is another one.
fn audit_line(line: &[u8]) -> Option<Result<Line, String>> {
    #[derive(Deserialize)]
    struct Any {
        audit: Option<serde::de::IgnoredAny>,
    }
    let begins = line.starts_with(b"{\"audit\"");
    let other = || !line.starts_with(b"{") || !serde_json::from_slice::<Any>(line).is_ok_and(|any| any.audit.is_some());
    if !begins && other() {
        return None;
    }
    Some(serde_json::from_slice(line).map_err(|error| error.to_string()))
}
