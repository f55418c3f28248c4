//! The namespaces of a cluster: how to start, find, enter and stop them.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::layout::Layout;
use super::plan::Plan;

/// Name of the hidden subcommand that runs [`super::supervisor`].
pub const SUPERVISE: &str = "cluster-supervise";

/// Starts the supervisor of `plan` in new namespaces. Returns its parent process, which ends when the supervisor ends.
pub fn start(layout: &Layout, plan: &Plan) -> Result<Child> {
    let log = layout.logs().join("supervisor.log");
    let log = OpenOptions::new().create(true).append(true).open(&log)?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if plan.own_network {
        unshare.arg("--net");
    }
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
        .arg(std::env::current_exe().context("failed to find the path of this program")?)
        .arg(SUPERVISE)
        .arg(Plan::file(layout))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A signal from the terminal, such as Ctrl-C, must not stop the cluster.
        .process_group(0)
        .spawn()
        .context("failed to start `unshare`; install the package util-linux")
}

/// Returns the process id of a cluster's supervisor, if it runs. The search compares command lines, so a stale pid file
/// or a reused process id cannot mislead it.
pub fn supervisor(layout: &Layout) -> Result<Option<Pid>> {
    let plan = Plan::file(layout);
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // A process that has just ended, or a zombie, has no command line.
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let mut arguments = line.split(|&byte| byte == 0).map(OsStr::from_bytes).skip(1);
        if arguments.next() == Some(OsStr::new(SUPERVISE)) && arguments.next() == Some(plan.as_os_str()) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Kills the supervisor, and with it every process in its namespaces. Waits until the last process has ended.
pub fn stop(layout: &Layout) -> Result<()> {
    let Some(pid) = supervisor(layout)? else { return Ok(()) };
    // It may have ended by itself since it was found, which is just as good.
    let _ = kill_process(pid, Signal::KILL);
    let deadline = Instant::now() + Duration::from_secs(30);
    // The kernel ends the first process of a PID namespace only after all the others.
    while !ended(pid) {
        if Instant::now() > deadline {
            bail!("process {} of cluster {} is still running 30 s after SIGKILL", pid.as_raw_pid(), layout.name);
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns whether a process has ended or is a zombie. In `stat`, the state follows the name, which is in parentheses.
fn ended(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()))
        .map_or(true, |stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
}

/// Returns a command that runs `program` in the cluster's network, with the host's files and processes.
pub fn in_network(supervisor: Pid, program: &OsStr) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", supervisor.as_raw_pid())).arg("--").arg(program);
    command
}

/// Sends SIGKILL to a unit. The supervisor restarts it after half a second.
pub fn kill_unit(layout: &Layout, supervisor: Pid, unit: &str) -> Result<()> {
    let file = layout.path("pid").join(unit);
    let pid =
        fs::read_to_string(&file).with_context(|| format!("cluster {} runs no program named {unit}", layout.name))?;
    let target = format!("--target={}", supervisor.as_raw_pid());
    let mut kill = Command::new("nsenter");
    kill.args([&target, "--mount", "--pid", "--", "kill", "-KILL", pid.trim()]);
    crate::tools::command::run(&mut kill)
}
