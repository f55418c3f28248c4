//! A time limit for urgent calls to the API server, shorter than the [general one](super::time_limit). For what waits behind
//! such a call (a lease, a policy, a control stream), a late result is worse than an error.

use std::io;
use std::time::Duration;

/// How long an urgent call may take. A call that takes longer may still have taken effect.
const URGENT_CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Awaits a call, and fails after a few seconds. The call is boxed, because futures of the client are large.
pub(crate) async fn with_timeout<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let call = tokio::time::timeout(URGENT_CALL_TIMEOUT, Box::pin(call));
    call.await.unwrap_or_else(|_| Err(kube::Error::Service(too_late().into())))
}

/// Returns the error of a call that took too long.
pub(super) fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the API server took too long")
}
