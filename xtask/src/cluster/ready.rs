//! Waiting for things to become true.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::tools::command;

/// Asks `check` until it says true, for at most a minute.
pub fn until(what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !check()? {
        if Instant::now() > deadline {
            bail!("{what} is not ready after a minute");
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Lets kubectl wait for something; it gives up by its own `--timeout`.
pub fn wait_for(what: &str, kubectl: &dyn Fn() -> Result<Command>, arguments: &[&str]) -> Result<()> {
    command::run(kubectl()?.args(arguments)).map_err(|error| error.context(format!("{what} is not ready")))
}
