//! Whether this machine has what the sandbox of a server needs. Without it, nothing is started.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::enclosure::{Plan, command_line};
use super::state::State;

/// Fails if a server could not be kept in its sandbox, and says what is missing.
pub(crate) fn check(state: &State) -> anyhow::Result<()> {
    mcp_pod::shim::sandbox::check_kernel().context(
        "this kernel cannot keep a tool server in its sandbox, so nothing is started: Linux 6.12 or newer with Landlock is \
         needed (the file /sys/kernel/security/lsm lists landlock)",
    )?;
    let folder = state.folder("run/check")?;
    let root = state.folder("run/check/root")?;
    let plan = Plan {
        root,
        readable: vec![],
        tls: folder,
        workspace: None,
        files: vec![],
        scratch: vec![],
        working_dir: None,
        environment: vec![],
        shim: vec![],
        command: vec![],
        only_check: true,
    };
    let mut command = Command::new("/proc/self/exe");
    let file = state.path("run/check/plan.json");
    plan.write(&file)?;
    command.arg0("mcp-fleet").args(command_line(&file)).stdin(Stdio::null());
    let output = command.output().context("failed to start a process")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let why = errors.trim().trim_start_matches("mcp-fleet try: ");
        bail!("this machine cannot keep a tool server in its sandbox, so nothing is started: {why}");
    }
    Ok(())
}
