//! The process of one run: started in the sandbox, and stopped with everything that it started.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::sandbox::{self, Monitor};
use super::Config;
use super::reaper::{Reaper, kill_remaining};

/// How long the server may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A running server and its pipes.
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) monitor: Monitor,
    /// Receives the exit status.
    pub(super) ended: oneshot::Receiver<WaitStatus>,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Process {
    /// Starts the configured command in the sandbox.
    pub(super) fn start(config: &Config, reaper: &Reaper) -> std::io::Result<Self> {
        let executable = Path::new("/proc/self/exe");
        let (mut child, monitor) = sandbox::spawn(executable, &config.profile, &config.command, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            // In its own process group, the server can be killed together with its children.
            command.process_group(0);
        })?;
        let missing = || std::io::Error::other("a pipe is missing");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(missing)?;
        let ended = reaper.watch(pid);
        Ok(Self {
            pid,
            monitor,
            ended,
            stdin: ChildStdin::from_std(child.stdin.take().ok_or_else(missing)?)?,
            stdout: ChildStdout::from_std(child.stdout.take().ok_or_else(missing)?)?,
            stderr: ChildStderr::from_std(child.stderr.take().ok_or_else(missing)?)?,
        })
    }
}

/// Stops a server whose input is closed: waits for it to end, then sends SIGTERM, then kills what is left. One that does not look
/// at its input gets SIGTERM first.
pub(super) async fn stop(
    pid: Pid,
    mut ended: oneshot::Receiver<WaitStatus>,
    monitor: &Monitor,
    grace: Duration,
    signal_first: bool,
) {
    let terminate = || {
        // This fails if the server has just ended.
        let _ = kill_process_group(pid, Signal::TERM);
    };
    if !ended.is_terminated() {
        if signal_first {
            terminate();
        }
        if timeout(grace, &mut ended).await.is_err() && !signal_first {
            terminate();
            let _ = timeout(STOP_TIMEOUT, &mut ended).await;
        }
    }
    // Otherwise a process could create new ones as fast as they are killed.
    monitor.refuse_forks();
    kill_remaining(pid).await;
}
