//! A child process and what the kernel says of it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

/// A process of ours, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program whose output nobody reads.
    pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("failed to start {}", command.get_program().display()))?))
    }

    /// Starts this program in one of its roles, and reads the line in which it says where it listens.
    pub(crate) fn role<T: DeserializeOwned>(args: &[&str]) -> anyhow::Result<(Self, T)> {
        let program = std::env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(program);
        let mut child = command
            .arg("serve")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a role")?;
        let output = child.stdout.take();
        let process = Self(child);
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line)?;
        }
        let said = serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", args.join(" ")))?;
        Ok((process, said))
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        // First field of schedstat: time on a CPU, in nanoseconds (proc_pid_schedstat(5)). Threads that have ended
        // are missing from the sum; the measured programs keep theirs.
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let nanos: u64 = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
            total += nanos;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Fails if the process has ended.
    pub(crate) fn check(&mut self, name: &str) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("{name} has ended: {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left to do.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Size of a file, in bytes.
pub(crate) fn file_size(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("failed to look at {}", path.display()))?.len())
}
