//! Repeats an operation until it succeeds.

use std::error::Error;
use std::time::Duration;

use mcp_fleet_core::retry::Backoff;

use crate::error::chain;

/// Calls `attempt` until it succeeds, and logs each failure as "failed to {what}".
pub(crate) async fn until_success<T, E: Error + 'static>(what: &str, attempt: impl AsyncFn() -> Result<T, E>) -> T {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(2));
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(error = chain(&error), "failed to {what}; trying again"),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_operation_is_tried_until_it_succeeds() {
        let left = std::cell::Cell::new(3);
        let attempt = async || {
            left.set(left.get() - 1);
            if left.get() == 0 { Ok("done") } else { Err(std::io::Error::other("not yet")) }
        };
        assert_eq!(until_success("finish", attempt).await, "done");
    }
}
