//! The cgroup of a cluster, in every cgroup hierarchy that the machine has mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::layout::Layout;

/// Creates the cluster's cgroup in every hierarchy. kubelet requires its root cgroup to exist.
pub fn create(layout: &Layout) -> Result<()> {
    for mount in hierarchies()? {
        let mut folder = mount;
        for part in layout.cgroup().split('/').filter(|part| !part.is_empty()) {
            delegate(&folder);
            folder.push(part);
            if !folder.is_dir() {
                fs::create_dir(&folder).with_context(|| format!("failed to create cgroup {}", folder.display()))?;
            }
        }
        delegate(&folder);
    }
    Ok(())
}

/// Removes the cluster's cgroups. Its processes must have ended.
pub fn remove(layout: &Layout) -> Result<()> {
    for mount in hierarchies()? {
        let folder = mount.join(layout.cgroup().trim_start_matches('/'));
        if folder.is_dir() {
            remove_tree(&folder)?;
        }
        if let Some(parent) = folder.parent() {
            // Fails while other clusters have cgroups here, which is fine.
            let _ = fs::remove_dir(parent);
        }
    }
    Ok(())
}

/// Enables the controllers for child cgroups, which only cgroup v2 requires. v1 has no such file.
fn delegate(folder: &Path) {
    let control = folder.join("cgroup.subtree_control");
    if control.exists() {
        for controller in ["+cpu", "+cpuset", "+memory", "+pids", "+io"] {
            // The machine may lack a controller, or use it with v1. kubelet reports those that it needs.
            let _ = fs::write(&control, controller);
        }
    }
}

fn remove_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    // The kernel releases a cgroup a moment after its last process has ended.
    for _ in 0..100 {
        if fs::remove_dir(folder).is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    fs::remove_dir(folder).with_context(|| format!("failed to remove cgroup {}", folder.display()))
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
    Ok(parse_hierarchies(&mounts))
}

fn parse_hierarchies(mounts: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (target, kind) = (fields.next()?, fields.next()?);
            (target.starts_with("/sys/fs/cgroup") && matches!(kind, "cgroup" | "cgroup2"))
                .then(|| PathBuf::from(target))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_mounts_of_both_versions_are_found_and_no_others() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      proc /proc proc rw 0 0\n";
        let expected = [PathBuf::from("/sys/fs/cgroup/cpu"), PathBuf::from("/sys/fs/cgroup/unified")];
        assert_eq!(parse_hierarchies(mounts), expected);
    }
}
