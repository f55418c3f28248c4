//! Resource limits of the command.
//!
//! Memory and CPU are limited by the pod's cgroup, and the number of processes and threads by the
//! [`monitor`](super::monitor).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One limit could not be set.
#[derive(Debug, thiserror::Error)]
#[error("failed to set the limit {resource:?}")]
pub(super) struct LimitsError {
    resource: Resource,
    source: rustix::io::Errno,
}

/// Open files per process: enough for any tool server, and few enough to notice a leak early.
const MAX_OPEN_FILES: u64 = 4096;

/// Sets soft and hard limits, never above the current hard limit.
pub(super) fn set() -> Result<(), LimitsError> {
    for (resource, wanted) in [
        // A core dump contains the data that a tool worked on, and ends up in unexpected places.
        (Resource::Core, 0),
        (Resource::Nofile, MAX_OPEN_FILES),
        // Landlock does not cover POSIX message queues.
        (Resource::Msgqueue, 0),
    ] {
        let allowed = getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let limit = Rlimit { current: Some(allowed), maximum: Some(allowed) };
        setrlimit(resource, limit).map_err(|source| LimitsError { resource, source })?;
    }
    Ok(())
}
