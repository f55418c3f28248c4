//! The second step: makes the file system, enters it, and becomes the shim.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};
use rustix::process::pivot_root;
use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs};

use super::Plan;
use super::plan::{OWN_PROGRAM, SHIM, Scratch, TEMPORARY, TLS};
use crate::local::lifetime;

/// Size of `/tmp` in bytes, as in a pod.
const TEMPORARY_SIZE: u64 = 256 << 20;
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Folders that language runtimes read to find out how much CPU and memory they have.
const SYSTEM_INFO: [&str; 2] = ["/sys/fs/cgroup", "/sys/devices/system/cpu"];

pub(super) fn run(plan: &Plan, parent: u32) -> anyhow::Result<ExitCode> {
    // /proc is still that of the machine, which shows the parent.
    lifetime::die_with(parent)?;
    // A server has no terminal, on which it could write lines like those of this program.
    rustix::process::setsid().context("failed to leave the terminal")?;
    enter(plan)?;
    give_up_privileges()?;
    if plan.only_check {
        return Ok(ExitCode::SUCCESS);
    }
    let working_dir = plan.working_dir.as_deref().unwrap_or(Path::new("/"));
    rustix::process::chdir(working_dir)
        .with_context(|| format!("failed to enter workingDir {}: is it on this machine?", working_dir.display()))?;
    let mut shim = Command::new(SHIM);
    shim.arg0(mcp_pod::NAME).args(plan.command_line()).env_clear().envs(plan.environment.iter().cloned());
    Err(shim.exec()).context("failed to start the shim")
}

/// Makes the file system of the plan the root of this process.
fn enter(plan: &Plan) -> anyhow::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("failed to separate the mounts from those of the machine")?;
    let root = &plan.root;
    let hardened = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", root, "tmpfs", hardened, c"size=1m,mode=755").context("failed to mount a new root file system")?;
    let temporary = Scratch { path: TEMPORARY.into(), bytes: TEMPORARY_SIZE, may_execute: false };
    let declared = plan.scratch.iter().find(|scratch| scratch.path == temporary.path);
    mount_scratch(root, declared.unwrap_or(&temporary))?;
    for path in plan.readable() {
        bind_or_link(path, root)?;
    }
    for path in DEVICES.into_iter().chain(SYSTEM_INFO).map(Path::new).filter(|path| path.exists()) {
        bind(path, root, path)?;
    }
    let executable = std::env::current_exe().context("failed to find this program")?;
    for inside in [SHIM, OWN_PROGRAM] {
        bind(&executable, root, Path::new(inside))?;
    }
    bind(&plan.tls, root, Path::new(TLS))?;
    if let Some((outside, inside)) = &plan.workspace {
        bind(outside, root, inside)?;
    }
    for scratch in plan.scratch.iter().filter(|scratch| scratch.path != temporary.path) {
        mount_scratch(root, scratch)?;
    }
    for files in &plan.files {
        let target = folder(root, &files.path)?;
        let failed = || format!("failed to write the files in {}", files.path.display());
        mount("tmpfs", &target, "tmpfs", hardened, c"mode=755").with_context(failed)?;
        for (name, contents) in &files.named {
            fs::write(target.join(name), contents).with_context(failed)?;
        }
    }
    let processes = folder(root, Path::new("/proc"))?;
    mount("proc", processes, "proc", hardened | MountFlags::NOEXEC, None).context(
        "failed to mount /proc. If this is a container that hides parts of /proc, run it on the machine itself",
    )?;
    close_mounts(plan)?;
    rustix::process::chdir(root)?;
    pivot_root(".", ".").context("failed to enter the new root file system")?;
    // The old root lies over the new one.
    unmount(".", UnmountFlags::DETACH).context("failed to leave the file system of the machine")?;
    rustix::process::chdir("/")?;
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | hardened, c"")
        .context("failed to make the root file system read-only")
}

/// Mounts a directory for temporary data.
fn mount_scratch(root: &Path, Scratch { path, bytes, .. }: &Scratch) -> anyhow::Result<()> {
    let target = folder(root, path)?;
    let options = CString::new(format!("size={bytes},mode=1777"))?;
    let hardened = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", target, "tmpfs", hardened, options.as_c_str())
        .with_context(|| format!("failed to mount {}", path.display()))
}

/// Makes everything read-only that was brought in, except the workspace and what is for temporary data: neither Landlock nor the system call filter keeps a
/// process from changing modes and attributes of files that it owns. A remount does not reach the mounts below a folder, so
/// each of them is remounted.
fn close_mounts(plan: &Plan) -> anyhow::Result<()> {
    let root = plan.root.canonicalize().context("failed to find the new root file system")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("failed to list the mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(path), Some(options)) = (fields.next().map(unescaped), fields.next()) else { continue };
        let Some(inside) = Path::new(&path).strip_prefix(&root).ok().map(|inside| Path::new("/").join(inside)) else {
            continue;
        };
        if ["/", "/tmp", "/proc"].iter().any(|own| inside == Path::new(own)) {
            continue;
        }
        if plan.scratch.iter().any(|scratch| inside == scratch.path) {
            continue;
        }
        let is_workspace = plan.workspace.as_ref().is_some_and(|(_, workspace)| inside.starts_with(workspace));
        let is_device = DEVICES.iter().any(|device| inside == Path::new(device));
        let mut flags = MountFlags::BIND | MountFlags::NOSUID;
        flags.set(MountFlags::RDONLY, !is_workspace || options.split(',').any(|option| option == "ro"));
        flags.set(MountFlags::NODEV, !is_device || options.split(',').any(|option| option == "nodev"));
        // The kernel does not let a user namespace take away what is set.
        flags.set(MountFlags::NOEXEC, options.split(',').any(|option| option == "noexec"));
        mount_remount(&path, flags, c"").with_context(|| format!("failed to make {} read-only", inside.display()))?;
    }
    Ok(())
}

/// Returns a path as `/proc/self/mountinfo` writes it, with its octal escapes replaced.
fn unescaped(field: &str) -> PathBuf {
    let (mut path, mut rest) = (Vec::with_capacity(field.len()), field.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let escape = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(escaped) = escape.filter(|_| *byte == b'\\') {
            path.push(escaped);
            rest = after.get(3..).unwrap_or_default();
        } else {
            path.push(*byte);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

/// Returns where a path of the enclosure is while it is built.
fn below(root: &Path, inside: &Path) -> anyhow::Result<PathBuf> {
    let relative = inside.strip_prefix("/").context("it is not an absolute path")?;
    if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        bail!("{} is not a plain path", inside.display());
    }
    Ok(root.join(relative))
}

fn folder(root: &Path, inside: &Path) -> anyhow::Result<PathBuf> {
    let target = below(root, inside)?;
    fs::create_dir_all(&target).with_context(|| format!("failed to create {}", inside.display()))?;
    Ok(target)
}

/// Makes a file or folder of the machine appear in the enclosure.
fn bind(outside: &Path, root: &Path, inside: &Path) -> anyhow::Result<()> {
    let target = below(root, inside)?;
    let failed = || format!("failed to bring {} into the enclosure", outside.display());
    if outside.is_dir() {
        fs::create_dir_all(&target).with_context(failed)?;
    } else if !target.exists() {
        fs::create_dir_all(target.parent().unwrap_or(root)).with_context(failed)?;
        fs::File::create(&target).with_context(failed)?;
    }
    mount_bind_recursive(outside, &target).with_context(failed)
}

/// Makes a path appear as it is: a link as a link, such as `/bin` on many machines.
fn bind_or_link(path: &Path, root: &Path) -> anyhow::Result<()> {
    match fs::read_link(path) {
        Ok(to) => {
            let target = below(root, path)?;
            fs::create_dir_all(target.parent().unwrap_or(root))?;
            std::os::unix::fs::symlink(to, target).with_context(|| format!("failed to link {}", path.display()))
        }
        Err(_) => bind(path, root, path),
    }
}

/// Gives up the capability to mount, and all ways to get one back. A process that gains capabilities with `exec`, as root
/// does, would also be untied from its parent.
fn give_up_privileges() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_are_read_with_their_escapes() {
        for (field, expected) in [
            ("/usr/bin", "/usr/bin"),
            ("/a\\040b", "/a b"),
            ("/a\\134\\011", "/a\\\t"),
            ("/a\\9", "/a\\9"),
            ("/a\\04", "/a\\04"),
        ] {
            assert_eq!(unescaped(field), Path::new(expected));
        }
    }
}
