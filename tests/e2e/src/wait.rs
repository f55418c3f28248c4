//! Waiting for what the cluster does in its own time.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks every 100 ms until there is an answer; an error is asked again too, and told when time is up.
pub async fn until<T, F>(what: impl Display, limit: Duration, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        let answer = ask().await;
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if start.elapsed() > limit {
            match answer {
                Err(error) => bail!("{what}: not within {limit:?}; last error: {error:#}"),
                _ => bail!("{what}: not within {limit:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
