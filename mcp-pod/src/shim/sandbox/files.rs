//! The Landlock domain: limits access to files, and denies all TCP ports but that of a server, and signals to processes outside.
//!
//! Landlock rules can only allow. A rule on `/` would allow everything below it, including the shim's own mounts.
//! Therefore the root directory is enumerated, and a subtree is allowed if it contains no closed path; otherwise its
//! entries are checked one by one. Closed paths are the private directories and all mounts except the image itself, so
//! that a mount added to the pod later is closed too. Links are skipped: their targets are allowed, or not, by their own
//! path.
//!
//! Landlock at the required ABI does not cover UDP, pathname Unix sockets, and System V and POSIX queues; the system call
//! filter does. Nothing covers `stat`, `chmod`, `utime` and extended attributes of files that the uid owns.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};

use super::Mounts;

/// The first ABI that covers signals and abstract sockets (Linux 6.12). Nothing newer is needed.
const REQUIRED: ABI = ABI::V6;

/// Files that the kubelet mounts into every container and that every program may read.
const HARMLESS_MOUNTS: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
/// Directories with separate rules.
const SPECIAL: [&str; 4] = ["/proc", "/sys", "/dev", TEMPORARY];
const TEMPORARY: &str = "/tmp";
/// Directories that language runtimes read to find out how much CPU and memory they have.
const SYSTEM_INFO: [&str; 2] = ["/sys/fs/cgroup", "/sys/devices/system/cpu"];
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Why the domain could not be entered.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("failed to set up Landlock")]
    Landlock(#[from] landlock::RulesetError),
    #[error("the kernel enforces only part of the Landlock domain")]
    Partial,
    #[error("failed to inspect {path}")]
    Inspect { path: PathBuf, source: io::Error },
    #[error(
        "{path} cannot be the workspace or mounted: it has to be an absolute directory that overlaps none of /proc, /sys, /dev, /tmp, the private directories and the other mounts"
    )]
    Mount { path: PathBuf },
    #[error("{path} cannot be private: it is in /tmp, where the command may write")]
    Private { path: PathBuf },
}

/// Puts this thread and all its future children into the domain. There is no way out of it.
///
/// The command may bind TCP sockets to `port` only. Without `readable`, it may read the image. With it, only what is listed: on a machine that is no container, the
/// root file system contains the files of its users.
pub(super) fn enter(
    workspace: Option<&Path>,
    mounts: &Mounts,
    private: &[PathBuf],
    readable: &[PathBuf],
    port: Option<u16>,
) -> Result<(), FilesError> {
    let mounted: Vec<&Path> = workspace
        .into_iter()
        .chain(mounts.all().map(PathBuf::as_path).filter(|path| *path != Path::new(TEMPORARY)))
        .collect();
    check_mounts(&mounted, private)?;
    if let Some(path) = private.iter().find(|path| path.starts_with(TEMPORARY)) {
        return Err(FilesError::Private { path: path.clone() });
    }

    let mut closed: Vec<PathBuf> = SPECIAL.iter().map(PathBuf::from).collect();
    if readable.is_empty() {
        closed.extend(mount_points()?);
    }
    closed.extend(private.iter().cloned());
    closed.extend(mounted.iter().map(|path| path.to_path_buf()));

    let mut image = Vec::new();
    let whole = [PathBuf::from("/")];
    for root in if readable.is_empty() { &whole[..] } else { readable } {
        // One inside a closed path stays closed.
        if !closed.iter().any(|closed| root.starts_with(closed)) {
            collect_open(root, &closed, &mut image)?;
        }
    }

    let mut rules = ruleset()?;
    for path in &image {
        rules = allow(rules, path, image_access())?;
    }
    for path in ["/proc"].into_iter().chain(SYSTEM_INFO) {
        rules = allow(rules, Path::new(path), AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    for path in DEVICES {
        rules = allow(rules, Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    for path in &mounts.files {
        rules = allow(rules, path, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    let scratch = mounts.scratch.iter().map(PathBuf::as_path);
    for path in workspace.into_iter().chain(scratch).chain([Path::new(TEMPORARY)]) {
        rules = allow(rules, path, writable_access())?;
    }
    for path in &mounts.executable_scratch {
        rules = allow(rules, path, writable_access() | AccessFs::Execute)?;
    }
    if let Some(port) = port {
        rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    let status = rules.restrict_self()?;
    if status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs {
        Ok(())
    } else {
        Err(FilesError::Partial)
    }
}

/// Returns a ruleset without rules, which denies every access that the required ABI covers.
fn ruleset() -> Result<RulesetCreated, landlock::RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(REQUIRED))?
        .handle_access(AccessNet::from_all(REQUIRED))?
        .scope(Scope::from_all(REQUIRED))?
        .create()
}

/// Fails if this kernel cannot enforce a domain.
pub(super) fn check_kernel() -> Result<(), FilesError> {
    Ok(ruleset().map(drop)?)
}

fn image_access() -> BitFlags<AccessFs> {
    AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir
}

/// Returns the access to writable directories: all ordinary work with files and directories, including moves between
/// directories. Excluded are links (the image is readable, so a link in the workspace could lead out of it), sockets,
/// pipes, devices, and execution of files that the command wrote. This does not prevent execution of code in memory, for
/// example with `memfd_create`; that code runs in the same domain.
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

/// Adds a rule for `path`, unless it does not exist or is a link.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, FilesError> {
    let Some((handle, kind)) = open(path)? else { return Ok(rules) };
    let access = match kind {
        FileType::Symlink => return Ok(rules),
        FileType::Directory => access,
        _ => access & AccessFs::from_file(REQUIRED),
    };
    Ok(rules.add_rule(PathBeneath::new(handle, access))?)
}

/// Opens `path` without following a link, and returns its type. `None` if it does not exist.
fn open(path: &Path) -> Result<Option<(OwnedFd, FileType)>, FilesError> {
    let failed = |error: rustix::io::Errno| FilesError::Inspect { path: path.to_owned(), source: error.into() };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let stat = rustix::fs::fstat(&handle).map_err(failed)?;
    Ok(Some((handle, FileType::from_raw_mode(stat.st_mode))))
}

/// Collects the largest subtrees at or below `path` that contain no closed path.
fn collect_open(path: &Path, closed: &[PathBuf], open: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    if closed.iter().any(|closed| closed == path) {
        return Ok(());
    }
    if !closed.iter().any(|closed| closed.starts_with(path)) {
        open.push(path.to_owned());
        return Ok(());
    }
    let failed = |source| FilesError::Inspect { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_symlink() {
            continue;
        }
        collect_open(&entry.path(), closed, open)?;
    }
    Ok(())
}

/// Checks that all of these are directories which overlap neither each other nor anything that is closed.
fn check_mounts(mounted: &[&Path], private: &[PathBuf]) -> Result<(), FilesError> {
    for (index, path) in mounted.iter().enumerate() {
        let real = fs::canonicalize(path).map_err(|source| FilesError::Inspect { path: path.into(), source })?;
        let apart = |other: &Path| !real.starts_with(other) && !other.starts_with(&real);
        let usable = real == *path
            && real.is_dir()
            && SPECIAL.iter().all(|special| apart(Path::new(special)))
            && private.iter().all(|private| apart(private))
            && mounted.iter().take(index).all(|other| apart(other));
        if !usable {
            return Err(FilesError::Mount { path: path.into() });
        }
    }
    Ok(())
}

/// Returns all mount points except the image's and the harmless ones (proc(5), `/proc/pid/mountinfo`, fifth field).
fn mount_points() -> Result<Vec<PathBuf>, FilesError> {
    let path = "/proc/self/mountinfo";
    let table = fs::read(path).map_err(|source| FilesError::Inspect { path: path.into(), source })?;
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

/// Decodes the kernel's octal escapes, such as `\040` for a blank.
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
    fn a_subtree_that_contains_a_closed_path_is_split() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("a/secret")).unwrap();
        fs::create_dir_all(at("a/open")).unwrap();
        fs::create_dir_all(at("b")).unwrap();
        std::os::unix::fs::symlink(at("a/secret"), at("a/link")).unwrap();
        let mut open = Vec::new();
        collect_open(root.path(), &[at("a/secret")], &mut open).unwrap();
        open.sort();
        assert_eq!(open, [at("a/open"), at("b")]);
    }

    #[test]
    fn a_mount_must_not_overlap_a_closed_path_or_another() {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let private = root.path().join("private");
        fs::create_dir_all(private.join("below")).unwrap();
        fs::create_dir_all(root.path().join("apart")).unwrap();
        for refused in [Path::new("/"), Path::new("/tmp"), Path::new("/proc/self"), root.path(), &private.join("below")]
        {
            assert!(check_mounts(&[refused], std::slice::from_ref(&private)).is_err(), "{}", refused.display());
        }
        let (apart, inside) = (root.path().join("apart"), root.path().join("apart/inside"));
        fs::create_dir(&inside).unwrap();
        check_mounts(&[&apart], std::slice::from_ref(&private)).unwrap();
        assert!(check_mounts(&[&apart, &inside], &[]).is_err() && check_mounts(&[&inside, &apart], &[]).is_err());
    }
}
