//! Waiting until parts of a cluster are ready.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::tools::command;

/// Calls `check` until it returns true, for at most a minute. `what` names the awaited thing in the error.
pub fn until(what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !check()? {
        if Instant::now() > deadline {
            bail!("{what} did not become ready within a minute");
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Runs a kubectl command that waits, until its own `--timeout` ends it. `what` names the awaited thing in the error.
pub fn kubectl_wait(what: &str, kubectl: &dyn Fn() -> Result<Command>, arguments: &[&str]) -> Result<()> {
    command::run(kubectl()?.args(arguments)).map_err(|error| error.context(format!("{what} did not become ready")))
}
