//! Keeps the processors from entering sleep states during measurements.
//!
//! In a closed loop, processors are idle for microseconds at a time. Waking one up, above all a virtual one, takes
//! several times as long as a hop. That time affects every path, and changes from minute to minute.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

/// File to request a maximum wake-up latency (Linux, `Documentation/power/pm_qos_interface.rst`). The request is in
/// force while the file is open.
const LATENCY: &str = "/dev/cpu_dma_latency";

/// A request that no processor sleeps, in force until it is dropped. Empty where this user or machine cannot request
/// that.
#[derive(Debug)]
pub(super) struct Awake(Option<File>);

impl Awake {
    /// Makes the request, and prints a warning if that fails.
    pub(super) fn keep() -> Self {
        let request = || {
            let mut file = OpenOptions::new().write(true).open(LATENCY)?;
            // The file expects microseconds as an integer in native byte order.
            file.write_all(&0_i32.to_ne_bytes())?;
            std::io::Result::Ok(file)
        };
        match request() {
            Ok(file) => Self(Some(file)),
            Err(error) => {
                eprintln!(
                    "warning: failed to open {LATENCY}: {error}. Processors may sleep between calls, which makes \
                     latencies longer; run as root to prevent that"
                );
                Self(None)
            }
        }
    }

    /// Returns the sentence for the report.
    pub(super) const fn describe(&self) -> &'static str {
        match self.0 {
            Some(_) => "processors kept from sleeping (/dev/cpu_dma_latency at 0)",
            None => "processors free to sleep between calls",
        }
    }
}
