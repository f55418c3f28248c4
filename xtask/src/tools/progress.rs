//! Progress of long steps, on standard error so that a task's result can be piped.

use std::fmt::Display;
use std::time::Instant;

use anyhow::Result;

/// Says what begins and how long it usually takes, does it, and says how long it took.
pub fn step<T>(what: impl Display, usually: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("· {what} (usually {usually})");
    let start = Instant::now();
    let result = work();
    let took = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => eprintln!("  done in {took:.1} s"),
        Err(_) => eprintln!("  failed after {took:.1} s"),
    }
    result
}

/// One line that is no step of its own.
pub fn note(what: impl Display) {
    eprintln!("· {what}");
}
