//! The Landlock domain: which files, that no TCP port, and that no process outside can be signalled.
//!
//! Landlock only allows: a rule on `/` would open everything below it, our own mounts too. So the root directory is
//! enumerated, and a subtree is granted only where nothing closed lies below it; otherwise its entries are looked at
//! one by one. Closed is every mount that is not the image itself (whatever the pod gets mounted later starts closed)
//! and every private directory. Links are left out: what they lead to is granted, or not, under its own name.
//!
//! Not covered by Landlock at the ABI required here, and therefore in the system call filter: UDP, pathname Unix
//! sockets, System V and POSIX queues. Not covered at all: `stat`, `chmod`, `utime` and extended attributes of files
//! that the uid owns.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};

/// Signals and abstract sockets can be fenced from 6 on (Linux 6.12); nothing newer is needed.
const REQUIRED: ABI = ABI::V6;

/// Where the kubelet mounts single files of its own that every program may read.
const HARMLESS_MOUNTS: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
/// Handled by rules of their own.
const SPECIAL: [&str; 4] = ["/proc", "/sys", "/dev", TEMPORARY];
const TEMPORARY: &str = "/tmp";
/// What runtimes read to learn how much processor and memory they have.
const SYSTEM_FACTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/devices/system/cpu"];
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Why the domain could not be entered.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("failed to use the kernel's Landlock")]
    Landlock(#[from] landlock::RulesetError),
    #[error("the kernel enforces only part of the domain")]
    Partial,
    #[error("failed to look at {path}")]
    Look { path: PathBuf, source: io::Error },
    #[error(
        "{path} cannot be the workspace: it has to be an absolute directory apart from /proc, /sys, /dev, /tmp and what is private"
    )]
    Workspace { path: PathBuf },
    #[error("{path} cannot be private: it lies where the command may write")]
    Private { path: PathBuf },
}

/// Puts this thread and all its future children into the domain, for ever.
pub(super) fn enter(workspace: Option<&Path>, private: &[PathBuf]) -> Result<(), FilesError> {
    let workspace = workspace.map(|path| check_workspace(path, private)).transpose()?;
    if let Some(path) = private.iter().find(|path| path.starts_with(TEMPORARY)) {
        return Err(FilesError::Private { path: path.clone() });
    }

    let mut closed: Vec<PathBuf> = SPECIAL.iter().map(PathBuf::from).collect();
    closed.extend(mount_points()?);
    closed.extend(private.iter().cloned());
    closed.extend(workspace.clone());

    let mut image = Vec::new();
    visit(Path::new("/"), &closed, &mut image)?;

    let mut rules = ruleset()?;
    for path in &image {
        rules = allow(rules, path, image_access())?;
    }
    for path in ["/proc"].into_iter().chain(SYSTEM_FACTS) {
        rules = allow(rules, Path::new(path), AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    for path in DEVICES {
        rules = allow(rules, Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    for path in workspace.iter().map(PathBuf::as_path).chain([Path::new(TEMPORARY)]) {
        rules = allow(rules, path, writable_access())?;
    }
    let status = rules.restrict_self()?;
    if status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs {
        Ok(())
    } else {
        Err(FilesError::Partial)
    }
}

/// Handles everything the required ABI knows; what no rule allows is denied. No TCP port is ever allowed.
fn ruleset() -> Result<RulesetCreated, landlock::RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(REQUIRED))?
        .handle_access(AccessNet::from_all(REQUIRED))?
        .scope(Scope::from_all(REQUIRED))?
        .create()
}

fn image_access() -> BitFlags<AccessFs> {
    AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir
}

/// Everything that honest work with files and directories needs, moves between directories among it. Not links (with
/// the image readable, a link made in the workspace would lead out of it), not sockets, pipes and devices, and no
/// execution of a file that the command wrote here. Code that it brings into memory, by `memfd_create` say, is not held
/// by this; it runs inside the same domain.
fn writable_access() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// Adds a rule for what is at `path` itself; nothing there, or a link there, is no rule.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, FilesError> {
    let Some((handle, kind)) = open(path)? else { return Ok(rules) };
    let access = match kind {
        FileType::Symlink => return Ok(rules),
        FileType::Directory => access,
        _ => access & AccessFs::from_file(REQUIRED),
    };
    Ok(rules.add_rule(PathBeneath::new(handle, access))?)
}

fn open(path: &Path) -> Result<Option<(OwnedFd, FileType)>, FilesError> {
    let failed = |error: rustix::io::Errno| FilesError::Look { path: path.to_owned(), source: error.into() };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let stat = rustix::fs::fstat(&handle).map_err(failed)?;
    Ok(Some((handle, FileType::from_raw_mode(stat.st_mode))))
}

/// Collects the largest subtrees of the image with nothing closed in them.
fn visit(path: &Path, closed: &[PathBuf], open: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    if closed.iter().any(|closed| closed == path) {
        return Ok(());
    }
    if !closed.iter().any(|closed| closed.starts_with(path)) {
        open.push(path.to_owned());
        return Ok(());
    }
    let failed = |source| FilesError::Look { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_symlink() {
            continue;
        }
        visit(&entry.path(), closed, open)?;
    }
    Ok(())
}

fn check_workspace(path: &Path, private: &[PathBuf]) -> Result<PathBuf, FilesError> {
    let refused = || FilesError::Workspace { path: path.to_owned() };
    let real = fs::canonicalize(path).map_err(|source| FilesError::Look { path: path.to_owned(), source })?;
    let apart = |other: &Path| !real.starts_with(other) && !other.starts_with(&real);
    let usable = real == path
        && real.is_dir()
        && SPECIAL.iter().all(|special| apart(Path::new(special)))
        && private.iter().all(|private| apart(private));
    if usable { Ok(real) } else { Err(refused()) }
}

/// Every mount point but the image's and the harmless ones (proc(5), `/proc/pid/mountinfo`, fifth field).
fn mount_points() -> Result<Vec<PathBuf>, FilesError> {
    let path = "/proc/self/mountinfo";
    let table = fs::read(path).map_err(|source| FilesError::Look { path: path.into(), source })?;
    Ok(parse_mount_points(&table))
}

fn parse_mount_points(table: &[u8]) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .filter(|path| path != Path::new("/") && !HARMLESS_MOUNTS.iter().any(|harmless| path == Path::new(harmless)))
        .collect()
}

/// Undoes the kernel's `\040` for blanks and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.filter(|_| first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_mount_but_the_image_and_the_kubelet_files_is_closed() {
        let table = b"1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /mcp-fleet/tls ro - tmpfs tmpfs ro\n\
            3 1 0:3 / /etc/hosts rw - ext4 /dev/vda rw\n4 1 0:4 / /data/with\\040blank rw - ext4 /dev/vdb rw\n";
        assert_eq!(parse_mount_points(table), [Path::new("/mcp-fleet/tls"), Path::new("/data/with blank")]);
    }

    #[test]
    fn a_subtree_with_something_closed_in_it_is_taken_apart() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("a/secret")).unwrap();
        fs::create_dir_all(at("a/open")).unwrap();
        fs::create_dir_all(at("b")).unwrap();
        std::os::unix::fs::symlink(at("a/secret"), at("a/link")).unwrap();
        let mut open = Vec::new();
        visit(root.path(), &[at("a/secret")], &mut open).unwrap();
        open.sort();
        assert_eq!(open, [at("a/open"), at("b")]);
    }

    #[test]
    fn a_workspace_must_not_overlap_what_is_closed() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let private = root.path().join("private");
        fs::create_dir_all(private.join("below")).unwrap();
        fs::create_dir_all(root.path().join("apart")).unwrap();
        for refused in [Path::new("/"), Path::new("/tmp"), Path::new("/proc/self"), root.path(), &private.join("below")]
        {
            assert!(check_workspace(refused, std::slice::from_ref(&private)).is_err(), "{}", refused.display());
        }
        check_workspace(&root.path().join("apart"), &[private]).unwrap();
    }
}
