//! The size of the budget, from the limit of the container.

use std::path::Path;

use mcp_fleet_policy::units::Bytes as Size;

/// Limit of this process's cgroup (cgroup v2), as a container sees it.
const CGROUP_LIMIT: &str = "/sys/fs/cgroup/memory.max";
/// Budget if there is no limit.
const WITHOUT_LIMIT: Size = Size::new(128 << 20);

/// Returns half of the container's memory limit, or 128 MiB if there is none. The other half is for the process itself,
/// for the kernel's socket buffers, which count against the limit too, and for what the allocator does not give back.
pub fn default_budget() -> Size {
    of_limit(Path::new(CGROUP_LIMIT))
}

fn of_limit(file: &Path) -> Size {
    // The file contains `max` if there is no limit. It does not exist in the root cgroup or with cgroup v1.
    let limit = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    limit.map_or(WITHOUT_LIMIT, |limit| Size::new(limit / 2))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_budget_is_half_of_the_limit_if_there_is_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "268435456\n").unwrap();
        assert_eq!(of_limit(file.path()), Size::new(128 << 20));
        std::fs::write(file.path(), "67108864\n").unwrap();
        assert_eq!(of_limit(file.path()), Size::new(32 << 20));
        std::fs::write(file.path(), "max\n").unwrap();
        assert_eq!(of_limit(file.path()), WITHOUT_LIMIT);
        assert_eq!(of_limit(Path::new("/nonexistent")), WITHOUT_LIMIT);
    }
}
