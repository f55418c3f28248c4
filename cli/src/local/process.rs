//! The processes of a fleet: they are started again when they end, and none outlives this one.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use super::lifetime;

/// Pauses before a process that has ended is started again: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a process has to run for the next pause to be the first again.
const STABLE: Duration = Duration::from_secs(60);

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    log: PathBuf,
}

/// What happened to a process since the last look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It runs, or waits for its next start.
    None,
    /// It has ended.
    Ended(String),
    /// It is time to start it again.
    Due,
}

impl Process {
    /// Starts this program under a name. Lines on its standard output go to `output`, and those on its standard error to
    /// the file `log`.
    pub(crate) fn start(
        name: &str,
        arguments: &[String],
        output: Stdio,
        (log, errors): (PathBuf, File),
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(name).args(arguments).env_clear();
        if let Some(level) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", level);
        }
        command.env(lifetime::PARENT, std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // Signals from the terminal go to this process only, which stops the others in order.
        command.process_group(0);
        let child = tokio::process::Command::from(command).spawn().context("failed to start a process")?;
        Ok(Self { child: Some(child), started: Instant::now(), pause: PAUSES.0, log })
    }

    /// Looks at the process.
    pub(crate) fn look(&mut self) -> Event {
        let Some(child) = &mut self.child else {
            return if self.started.elapsed() >= self.pause { Event::Due } else { Event::None };
        };
        match child.try_wait() {
            Ok(None) => Event::None,
            Ok(Some(status)) => {
                self.child = None;
                self.pause = if self.started.elapsed() > STABLE { PAUSES.0 } else { (self.pause * 2).min(PAUSES.1) };
                self.started = Instant::now();
                Event::Ended(self.describe(status))
            }
            Err(error) => Event::Ended(error.to_string()),
        }
    }

    /// Takes over the pauses of the process that this one replaces.
    #[must_use]
    pub(crate) fn after(mut self, before: &Self) -> Self {
        self.pause = before.pause;
        self
    }

    /// Asks the process to end.
    pub(crate) fn terminate(&self) {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Fails if it has just ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until the process has ended, and kills it if that takes too long.
    pub(crate) async fn end(&mut self, within: Duration) {
        let Some(mut child) = self.child.take() else { return };
        if tokio::time::timeout(within, child.wait()).await.is_err() {
            // The kernel kills what it has started.
            let _ = child.kill().await;
        }
    }

    /// Describes how the process ended, with its last words.
    fn describe(&self, status: ExitStatus) -> String {
        let words = last_line(&self.log).map_or_else(String::new, |line| format!(": {line}"));
        format!("{status}{words} (log: {})", self.log.display())
    }
}

/// Returns the last line of a log that says something: the message of a JSON line, or the whole line.
fn last_line(log: &Path) -> Option<String> {
    const MOST: usize = 300;
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let message = serde_json::from_str::<serde_json::Value>(line).ok().and_then(|json| {
        let fields = &json["fields"];
        let message = fields["message"].as_str()?;
        let detail = ["line", "error", "reason"].iter().find_map(|name| fields[*name].as_str());
        Some(detail.map_or_else(|| message.to_owned(), |detail| format!("{message}: {detail}")))
    });
    let line = message.unwrap_or_else(|| line.to_owned());
    Some(line.chars().filter(|character| !character.is_control()).take(MOST).collect())
}
