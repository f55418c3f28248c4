//! Ties the life of a process to that of another, so that a crash leaves no orphans.

use anyhow::{Context as _, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

/// Environment variable with the process that a gateway must not outlive.
pub(crate) const PARENT: &str = "MCP_FLEET_TRY_PARENT";

/// Has the kernel kill this process when its parent ends, which must be the process `parent`.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("failed to tie this process to its parent")?;
    // The parent may have ended before that. Then this process has another parent already.
    if parent_of_this()? != parent {
        bail!("the process that started this one has ended");
    }
    Ok(())
}

/// Ties this process to the one that the environment names, if it names one.
pub(crate) fn die_with_parent() -> anyhow::Result<()> {
    match std::env::var(PARENT) {
        Ok(parent) => die_with(parent.parse().context("the parent's id is not a number")?),
        Err(_) => Ok(()),
    }
}

/// Returns the parent of this process, as /proc numbers processes. In a new process table that is not yet mounted,
/// getppid(2) returns 0 for a parent outside of it.
fn parent_of_this() -> anyhow::Result<u32> {
    let status = std::fs::read_to_string("/proc/self/status").context("failed to read /proc/self/status")?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.and_then(|text| text.trim().parse().ok()).context("failed to find the parent in /proc/self/status")
}
