//! Space on the disk that the node uses. When a disk is nearly full, kubelet evicts pods and accepts no more, and whatever
//! runs on the node then fails in ways that do not tell why.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Below this, kubelet evicts pods. It is not a share of the disk, because that is much on a large one.
pub const EVICTION: &str = "256Mi";
/// Space that a node with the demo's images, logs and volumes takes, with a margin above [`EVICTION`].
const NEEDED_GIB: u64 = 4;

/// Checks that the disk of `folder`, which may not exist yet, has enough space for a node.
pub fn require(folder: &Path) -> Result<()> {
    let existing = folder.ancestors().find(|folder| folder.exists()).context("the folder of the node has no parent")?;
    let disk =
        rustix::fs::statvfs(existing).with_context(|| format!("failed to read the space of {}", existing.display()))?;
    require_bytes(folder, disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn require_bytes(folder: &Path, free: u64) -> Result<()> {
    const MIB: u64 = 1 << 20;
    ensure!(
        free >= NEEDED_GIB * 1024 * MIB,
        "a node needs {NEEDED_GIB} GiB on the disk of {}, and {} MiB are free. `cargo clean` in checkouts that are not in use \
         frees most",
        folder.display(),
        free / MIB
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nearly_full_disk_is_refused_with_what_is_missing() {
        let folder = Path::new("/var/lib/mcp-fleet/fleet");
        require_bytes(folder, 4 << 30).expect("four GiB are enough");
        let error = require_bytes(folder, (4 << 30) - 1).expect_err("less is not").to_string();
        assert!(
            error.contains("needs 4 GiB on the disk of /var/lib/mcp-fleet/fleet, and 4095 MiB are free"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_has_the_disk_of_its_parent() {
        let folder = Path::new("/proc/self/no/such/folder");
        // /proc has no space at all.
        assert!(require(folder).is_err());
    }
}
