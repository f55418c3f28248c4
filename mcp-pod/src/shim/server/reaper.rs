//! Collects ended child processes: the server, and orphans, which process 1 of the container inherits.
//!
//! All children are collected in this one place, because `waitpid` for one child and `waitpid` for all of them cannot be
//! mixed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::super::processes;

/// Collects ended children and reports their status to the tasks that wait for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Reaper {
    waiting: Arc<Mutex<HashMap<Pid, oneshot::Sender<WaitStatus>>>>,
}

impl Reaper {
    /// Starts to collect. From now on this process inherits orphaned descendants, even if it is not process 1.
    pub(super) fn start() -> std::io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut child_signals = signal(SignalKind::child())?;
        let reaper = Self::default();
        let own = reaper.clone();
        tokio::spawn(async move {
            while child_signals.recv().await.is_some() {
                own.collect();
            }
        });
        Ok(reaper)
    }

    /// Returns a receiver of the exit status of `pid`. Must be called before the first await after the child was started,
    /// or the status may be lost.
    pub(super) fn watch(&self, pid: Pid) -> oneshot::Receiver<WaitStatus> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(pid, sender);
        receiver
    }

    fn collect(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let waiting = self.waiting.lock().remove(&pid);
            if let Some(sender) = waiting {
                // This fails if nobody waits any more.
                let _ = sender.send(status);
            }
        }
    }
}

/// Kills all processes that a run left behind, so that none of them is there in the next run. `group` is the server's
/// process group. A process that left the group becomes a child of the shim when its parent dies, and is killed then.
pub(super) async fn kill_remaining(group: Pid) {
    const ROUNDS: u32 = 100;
    // The group may be empty by now.
    let _ = kill_process_group(group, Signal::KILL);
    for _ in 0..ROUNDS {
        let children = children();
        if children.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        for child in children.unwrap_or_default() {
            // It may have ended on its own.
            let _ = kill_process(child, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tracing::warn!("failed to kill all processes that the server left behind");
}

/// Returns the children of this process. Ended children are included until they are collected.
fn children() -> std::io::Result<Vec<Pid>> {
    let own = Some(rustix::process::getpid());
    let all = processes::all()?;
    Ok(all.into_iter().filter(|process| process.parent == own).map(|process| process.pid).collect())
}
