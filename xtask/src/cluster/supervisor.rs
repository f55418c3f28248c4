//! The supervisor: the first process of a cluster's PID namespace. It runs the setup commands, starts the units, and
//! restarts those that end.
//!
//! Because it is the first process, cleanup is reliable: when it ends for any reason, the kernel kills every other
//! process of the namespace, including container shims and the processes of pods, and removes their mounts and
//! interfaces.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{WaitOptions, wait};

use super::plan::{Condition, Plan, Unit};
use crate::tools::command;

/// Runs the plan in `file`. Logs and pid files go to the folders beside it. Returns only on failure.
pub fn run(file: &Path) -> Result<()> {
    let state = file.parent().context("the path of the plan has no parent folder")?;
    let plan = Plan::read(file)?.with_context(|| format!("there is no plan at {}", file.display()))?;
    for line in &plan.setup {
        let (program, arguments) = line.split_first().context("the plan has an empty setup command")?;
        command::run(Command::new(program).args(arguments))?;
    }
    let mut running = HashMap::new();
    for unit in &plan.units {
        if let Some(condition) = &unit.wait_for {
            wait_until(condition)?;
        }
        running.insert(start(unit, state)?, unit);
    }
    loop {
        // Reaps units, and orphans such as container shims and hooks.
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        if let Some(unit) = running.remove(&pid.as_raw_pid()) {
            eprintln!("{} ended ({status:?}); restarting it", unit.name);
            // Without a pause, a program that fails at once would use a whole processor.
            sleep(Duration::from_millis(500));
            running.insert(start(unit, state)?, unit);
        }
    }
}

/// Starts a unit and returns its process id in this namespace.
fn start(unit: &Unit, state: &Path) -> Result<i32> {
    let (program, arguments) = unit.command.split_first().context("a unit of the plan has no command")?;
    let log = log_file(state, &unit.name)?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("failed to start {program}"))?;
    let pid = i32::try_from(child.id())?;
    fs::write(state.join("pid").join(&unit.name), pid.to_string())?;
    Ok(pid)
}

fn log_file(state: &Path, unit: &str) -> Result<File> {
    let file = state.join("log").join(format!("{unit}.log"));
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .with_context(|| format!("failed to open {}", file.display()))
}

fn wait_until(condition: &Condition) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = check(condition) {
        if Instant::now() > deadline {
            return Err(error);
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn check(condition: &Condition) -> Result<()> {
    match condition {
        Condition::Open(address) => {
            let socket: SocketAddr = address.parse().with_context(|| format!("{address} is not a socket address"))?;
            TcpStream::connect_timeout(&socket, Duration::from_secs(1))
                .with_context(|| format!("nothing listens on {address}"))?;
            Ok(())
        }
        Condition::Succeeds(line) => {
            let (program, arguments) = line.split_first().context("a condition of the plan has no command")?;
            command::run(Command::new(program).args(arguments))
        }
    }
}
