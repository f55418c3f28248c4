//! One measurement: some connections, one size, a fixed time.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::try_join_all;

use super::{Client, message};

/// What one measurement saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// Durations of all calls, sorted.
    pub(crate) calls: Vec<Duration>,
    /// From the first call to the last answer.
    pub(crate) elapsed: Duration,
}

impl Slot {
    /// The duration below which that part of the calls stayed.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = (self.calls.len() as f64 * part) as usize;
        self.calls.get(index.min(self.calls.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Makes calls on every connection for a while; gives the connections back.
pub(crate) async fn run(clients: &mut [Client], size: usize, length: Duration) -> anyhow::Result<Slot> {
    let body = Bytes::from(message::call(size));
    let expected = message::result(size).len();
    let start = Instant::now();
    let deadline = start + length;
    let loops = clients.iter_mut().map(|client| closed_loop(client, body.clone(), expected, deadline));
    let mut calls = try_join_all(loops).await?.concat();
    let elapsed = start.elapsed();
    calls.sort_unstable();
    Ok(Slot { calls, elapsed })
}

async fn closed_loop(
    client: &mut Client,
    body: Bytes,
    expected: usize,
    deadline: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut calls = Vec::with_capacity(65_536);
    loop {
        let start = Instant::now();
        if start >= deadline {
            return Ok(calls);
        }
        let answer = client.call(body.clone()).await?;
        calls.push(start.elapsed());
        // The gateway may write a result differently, but never shorter by more than a few escapes.
        let whole = answer.len() > expected / 2;
        whole
            .then_some(())
            .with_context(|| format!("an answer of {} bytes for a result of {expected}", answer.len()))?;
    }
}
