//! Resource limits of the command.
//!
//! Memory, processor and number of processes are the pod's cgroup's business. `RLIMIT_NPROC` in particular would count
//! the processes of every pod on the node that happens to run under the same uid.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Failed to set one limit.
#[derive(Debug, thiserror::Error)]
#[error("failed to set {resource:?}")]
pub(super) struct LimitsError {
    resource: Resource,
    source: rustix::io::Errno,
}

/// Open files a process: plenty for a tool server, few enough that a leak shows early.
const OPEN_FILES: u64 = 4096;

/// Sets soft and hard limits, never above what is in force.
pub(super) fn set() -> Result<(), LimitsError> {
    for (resource, wanted) in [
        // A core dump of a tool holds what it worked on, and lands where nobody expects it.
        (Resource::Core, 0),
        (Resource::Nofile, OPEN_FILES),
        // POSIX message queues are a channel outside Landlock.
        (Resource::Msgqueue, 0),
    ] {
        let allowed = getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let limit = Rlimit { current: Some(allowed), maximum: Some(allowed) };
        setrlimit(resource, limit).map_err(|source| LimitsError { resource, source })?;
    }
    Ok(())
}
