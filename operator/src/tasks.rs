//! Panics in tasks end the process.
//!
//! The release profile aborts on a panic, so no code restarts a task that panicked: Kubernetes restarts the process, which
//! rebuilds all of its state. Tests unwind, so there a panic is passed on to whatever waits for the task.

use tokio::task::JoinError;

/// Returns what a task returned; none if it was aborted. Panics if the task panicked.
pub(crate) fn ended<T>(joined: Result<T, JoinError>) -> Option<T> {
    match joined {
        Ok(value) => Some(value),
        Err(error) if error.is_cancelled() => None,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_task_reaches_the_task_that_waits_for_it() {
        assert_eq!(ended(tokio::spawn(async { 5 }).await), Some(5));
        let aborted = tokio::spawn(std::future::pending::<()>());
        aborted.abort();
        assert_eq!(ended(aborted.await), None);
        let waiting = tokio::spawn(async { ended(tokio::spawn(async { panic!("broken") }).await) });
        assert!(waiting.await.is_err_and(|error: JoinError| error.is_panic()));
    }
}
