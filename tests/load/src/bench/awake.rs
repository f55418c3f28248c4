//! Keeps the processors from sleeping while something is measured.
//!
//! A closed loop leaves them idle for microseconds at a time, and what it costs to wake one again, above all a virtual
//! one, is several times what a hop costs, falls on every path, and differs from minute to minute.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

/// Where a latency is asked for (Linux, `Documentation/power/pm_qos_interface.rst`): it holds while the file is open.
const LATENCY: &str = "/dev/cpu_dma_latency";

/// The request that no processor sleeps, until it is dropped; nothing if this user or machine cannot make one.
#[derive(Debug)]
pub(super) struct Awake(Option<File>);

impl Awake {
    /// Asks for it.
    pub(super) fn keep() -> Self {
        let request = || {
            let mut file = OpenOptions::new().write(true).open(LATENCY)?;
            // Microseconds, as an integer of the machine's own order.
            file.write_all(&0_i32.to_ne_bytes())?;
            std::io::Result::Ok(file)
        };
        match request() {
            Ok(file) => Self(Some(file)),
            Err(error) => {
                eprintln!("the processors may sleep between calls, which makes latencies longer: {LATENCY}: {error}");
                Self(None)
            }
        }
    }

    /// What the report says of it.
    pub(super) const fn describe(&self) -> &'static str {
        match self.0 {
            Some(_) => "processors kept from sleeping (/dev/cpu_dma_latency at 0)",
            None => "processors free to sleep between calls",
        }
    }
}
