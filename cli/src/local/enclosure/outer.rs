//! The first step: leaves the namespaces of the user, starts the second step, and waits for it.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, Signal, getgid, getuid, kill_process};
use rustix::thread::{CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities};
use tokio::signal::unix::{SignalKind, signal};

use super::{Arguments, INNER};
use crate::local::lifetime;

pub(super) fn run(Arguments { plan, parent }: &Arguments) -> anyhow::Result<ExitCode> {
    lifetime::die_with(*parent)?;
    leave_namespaces()?;
    // The kernel unties a process that gains capabilities, as in its own namespace.
    lifetime::die_with(*parent)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("mcp-fleet").arg(INNER).arg(plan).arg(std::process::id().to_string());
    // One thread, because the kernel kills the second step when the thread ends that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait(command.into()))
}

/// Enters a user namespace, in which this process may make other namespaces.
fn leave_namespaces() -> anyhow::Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let flags = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).context(
        "failed to make a user namespace, which tool servers are kept in. If this is a container, run it on the machine \
         itself. Otherwise an administrator has to allow user namespaces: sysctl user.max_user_namespaces must not be 0, \
         and where they exist, kernel.unprivileged_userns_clone must be 1 and kernel.apparmor_restrict_unprivileged_userns \
         must be 0",
    )?;
    std::fs::write("/proc/self/setgroups", "deny").context("failed to give up supplementary groups")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).context("failed to keep the user id")?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).context("failed to keep the group id")?;
    // The second step mounts file systems. Unless it is root, it loses the capability with `exec`, except an ambient one.
    let mounts = CapabilitySet::SYS_ADMIN;
    set_capabilities(None, CapabilitySets { effective: mounts, permitted: mounts, inheritable: mounts })?;
    configure_capability_in_ambient_set(mounts, true).context(
        "failed to get the right to mount file systems in a user namespace. An administrator has to allow that: where it \
         exists, sysctl kernel.apparmor_restrict_unprivileged_userns must be 0",
    )
}

/// Waits for the second step, and passes on the signal to stop.
async fn wait(mut command: tokio::process::Command) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut child = command.spawn().context("failed to start the second step")?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    loop {
        let status = tokio::select! {
            status = child.wait() => status?,
            _ = terminate.recv() => { stop(pid); continue }
            _ = interrupt.recv() => { stop(pid); continue }
        };
        if let Some(code) = status.code().and_then(|code| u8::try_from(code).ok()) {
            return Ok(ExitCode::from(code));
        }
        bail!("the shim was killed by signal {}", status.signal().unwrap_or_default());
    }
}

fn stop(pid: Option<Pid>) {
    if let Some(pid) = pid {
        // Fails if it has just ended.
        let _ = kill_process(pid, Signal::TERM);
    }
}
