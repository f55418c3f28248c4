//! Calls to the API server for which the [client's](super::client()) time limit is too long: what waits for them (a lease, a
//! policy, a stream) is better refused than late.

use std::io;
use std::time::Duration;

/// How long an urgent call may take. One that takes longer may still have its effect.
const URGENT_CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends a call after a few seconds. It is boxed: futures of the client are large, and these are awaited in many.
pub(crate) async fn with_timeout<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let call = tokio::time::timeout(URGENT_CALL_TIMEOUT, Box::pin(call));
    call.await.unwrap_or_else(|_| Err(kube::Error::Service(too_late().into())))
}

/// Returns the error of a call that took too long.
pub(super) fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the API server took too long")
}
