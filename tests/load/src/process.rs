//! A child process, and its CPU time and memory.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

/// A child process. Dropping this kills it.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program and discards its standard output.
    pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("failed to start {}", command.get_program().display()))?))
    }

    /// Starts this program in one of its roles. Returns the process and the addresses that it announces on its first
    /// line.
    pub(crate) fn role<T: DeserializeOwned>(args: &[&str]) -> anyhow::Result<(Self, T)> {
        let program = std::env::current_exe().context("failed to find the path of this program")?;
        let mut command = Command::new(program);
        let mut child = command
            .arg("serve")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start the role {}", args.join(" ")))?;
        let output = child.stdout.take();
        let process = Self(child);
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line)?;
        }
        let addresses = serde_json::from_str(&line)
            .with_context(|| format!("the role {} announced no addresses, but {line:?}", args.join(" ")))?;
        Ok((process, addresses))
    }

    /// Returns the CPU time that all threads of the process have used so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        // The first field of schedstat is the time on a CPU in nanoseconds (proc_pid_schedstat(5)). The sum does not
        // include threads that have ended, but the measured programs never end a thread.
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let nanos: u64 = text.split_whitespace().next().context("schedstat is empty")?.parse()?;
            total += nanos;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Returns the resident memory of the process, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// Returns the most resident memory that the process ever had, in bytes.
    pub(crate) fn peak_resident(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let line = line.with_context(|| format!("the status of the process has no {field}"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Asks the process to end, with SIGTERM.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        if !status.success() {
            bail!("failed to send SIGTERM: {status}");
        }
        Ok(())
    }

    /// Fails if the process has ended. `name` names it in the error.
    pub(crate) fn check(&mut self, name: &str) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("{name} has ended: {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended by itself. Errors do not matter here.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Returns the size of a file, in bytes.
pub(crate) fn file_size(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("failed to read the size of {}", path.display()))?.len())
}
