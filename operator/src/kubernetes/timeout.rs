//! Calls to the API server that must not hang: what waits behind them (a lease, a policy, a stream) is worth less late
//! than refused.

use std::time::Duration;

/// How long a call may take. One that takes longer may have had its effect all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives a call up after a few seconds. It is boxed: futures of the client are large, and these are awaited in many.
pub(crate) async fn with_timeout<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(PATIENCE, Box::pin(call)).await.unwrap_or_else(|_| {
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "the API server took too long");
        Err(kube::Error::Service(late.into()))
    })
}
