//! Collects dead children: the server's, and orphans that fall to us because we are process 1 of the container.
//!
//! Everything ends up here, because `waitpid` for one child and for all of them cannot be mixed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Knows who waits for whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Reaper {
    waiting: Arc<Mutex<HashMap<Pid, oneshot::Sender<WaitStatus>>>>,
}

impl Reaper {
    /// Starts to collect. Orphans of descendants come to this process from now on, also where it is not process 1.
    pub(super) fn start() -> std::io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut deaths = signal(SignalKind::child())?;
        let reaper = Self::default();
        let own = reaper.clone();
        tokio::spawn(async move {
            while deaths.recv().await.is_some() {
                own.collect();
            }
        });
        Ok(reaper)
    }

    /// Tells when `pid`, a child that was just started, ends. Has to be called before the first await after its start.
    pub(super) fn watch(&self, pid: Pid) -> oneshot::Receiver<WaitStatus> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(pid, sender);
        receiver
    }

    fn collect(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let waiting = self.waiting.lock().remove(&pid);
            if let Some(sender) = waiting {
                // Whoever no longer waits does not want to know.
                let _ = sender.send(status);
            }
        }
    }
}

/// Kills everything that the server left behind, so that its next run meets none of it. `group` is the server's own
/// process group; what has left the group becomes our child when its parent dies, and is found there.
pub(super) async fn sweep(group: Pid) {
    const ROUNDS: u32 = 100;
    // The group may be empty by now.
    let _ = kill_process_group(group, Signal::KILL);
    for _ in 0..ROUNDS {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            // It may have died by itself.
            let _ = kill_process(child, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tracing::warn!("processes of the server outlive its end");
}

/// Children of this process, by the parent in `/proc/<pid>/stat` (proc(5); the fields after the name, which may hold
/// anything but ends at the last parenthesis, are state and parent). The dead among them count until collected.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().and_then(Pid::from_raw);
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|pid| {
            let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.is_ok_and(|stat| parent(&String::from_utf8_lossy(&stat)) == Some(own))
        })
        .collect()
}
