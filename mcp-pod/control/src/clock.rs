//! The clock that leases of homes are measured on.

/// Returns the milliseconds since the machine started. Unlike [`std::time::Instant`], the clock runs on while the machine
/// sleeps: a lease ends while its holder is suspended.
pub fn boot_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = |seconds: i64, nanos: i64| u64::try_from(seconds * 1000 + nanos / 1_000_000);
    // The clock starts at zero and never goes back.
    millis(now.tv_sec, now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs() {
        let before = boot_millis();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(before > 0 && boot_millis() >= before + 20);
    }
}
