//! Progress of the main loops, for the liveness probe. Each loop reports its rounds, because one that hangs reports nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a loop may take for one round. Every call to the API server has a time limit, so a round that takes longer
/// never ends.
const MAX_ROUND: Duration = Duration::from_mins(1);

/// When each running loop last reported progress.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<BTreeMap<&'static str, Instant>>>);

impl Progress {
    /// Starts to observe a loop. It is observed until the returned value is dropped.
    pub fn observe(&self, name: &'static str) -> ObservedLoop {
        let observed = ObservedLoop { progress: self.clone(), name };
        observed.report();
        observed
    }

    /// Returns an error if a loop hangs.
    pub fn check(&self) -> Result<(), Cow<'static, str>> {
        let loops = self.0.lock();
        let hangs = loops.iter().find(|(_, reported)| reported.elapsed() > MAX_ROUND);
        hangs.map_or(Ok(()), |(name, reported)| {
            Err(format!("{name} made no progress for {} seconds", reported.elapsed().as_secs()).into())
        })
    }
}

/// A loop that is observed.
#[derive(Debug)]
pub struct ObservedLoop {
    progress: Progress,
    name: &'static str,
}

impl ObservedLoop {
    /// Reports that the loop starts another round.
    pub fn report(&self) {
        self.progress.0.lock().insert(self.name, Instant::now());
    }
}

impl Drop for ObservedLoop {
    fn drop(&mut self) {
        self.progress.0.lock().remove(self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_noticed() {
        let progress = Progress::default();
        assert_eq!(progress.check(), Ok(()), "before the first loop starts");
        let (election, proofs) = (progress.observe("the election"), progress.observe("the proofs"));
        tokio::time::advance(Duration::from_secs(40)).await;
        election.report();
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(progress.check(), Err("the proofs made no progress for 80 seconds".into()));
        drop(proofs);
        assert_eq!(progress.check(), Ok(()), "a replica that no longer leads proves nothing");
    }
}
