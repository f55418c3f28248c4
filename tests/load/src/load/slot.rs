//! One measurement: a number of connections, one text size, and a fixed duration.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::try_join_all;

use super::{Client, message};

/// Durations of the calls of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// Durations of all calls, sorted.
    pub(crate) calls: Vec<Duration>,
    /// Time from the first call to the last answer.
    pub(crate) elapsed: Duration,
}

impl Slot {
    /// Returns the duration that the given part of the calls did not exceed: 0.5 for the median.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = (self.calls.len() as f64 * part) as usize;
        self.calls.get(index.min(self.calls.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Makes calls on every connection for the given time.
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
        // The gateway may encode a result differently, but shortens it by a few escapes at most.
        let is_complete = answer.len() > expected / 2;
        is_complete.then_some(()).with_context(|| {
            format!("the answer has {} bytes, but the result alone should have {expected}", answer.len())
        })?;
    }
}
