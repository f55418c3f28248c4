//! Waits for a condition of the cluster.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Calls `check` every 100 ms until it returns a value, for at most `limit`. Errors are retried; the last one is
/// reported when time is up. `what` names the awaited thing in that error.
pub async fn until<T, F>(what: impl Display, limit: Duration, mut check: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        let outcome = check().await;
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if start.elapsed() > limit {
            match outcome {
                Err(error) => bail!("gave up waiting for {what} after {limit:?}; last error: {error:#}"),
                _ => bail!("gave up waiting for {what} after {limit:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
