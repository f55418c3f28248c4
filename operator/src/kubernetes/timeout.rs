//! A time limit for calls to the API server. For what waits behind such a call (a lease, a policy, a control stream), a late
//! result is worse than an error.

use std::time::Duration;

/// How long a call may take. A call that takes longer may still have taken effect.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Awaits a call, and fails after a few seconds. The call is boxed, because futures of the client are large.
pub(crate) async fn with_timeout<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(CALL_TIMEOUT, Box::pin(call)).await.unwrap_or_else(|_| {
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "the API server took too long");
        Err(kube::Error::Service(late.into()))
    })
}
