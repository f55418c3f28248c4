//! Progress of long steps, on standard error, so that the result of a task can be piped.

use std::fmt::Display;
use std::time::Instant;

use anyhow::Result;

/// Runs `work`. Prints what it does and how long it usually takes, and at the end how long it took. Steps can run
/// at the same time, so both lines name the step.
pub fn step<T>(what: impl Display, usually: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let what = what.to_string();
    eprintln!("· {what} (usually {usually})");
    let start = Instant::now();
    let result = work();
    let took = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => eprintln!("  {what}: done in {took:.1} s"),
        Err(_) => eprintln!("  {what}: failed after {took:.1} s"),
    }
    result
}

/// Prints one line of progress.
pub fn note(what: impl Display) {
    eprintln!("· {what}");
}
