//! Checks path arguments against the file system that the server uses, where links can be resolved.
//!
//! The gateway has checked the text of each path. Here, every existing part of it must be a real directory or file below
//! one of the granted roots, without any link (openat2(2) with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`,
//! `RESOLVE_NO_MAGICLINKS`). The end of a path may not exist yet, so that a tool can create files. No link can appear
//! between the check and the server's access, because the sandbox does not let the server create or move links.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::envelope::PathCheck;

/// A path is not below its roots, or could not be checked. It is not named: argument values are kept out of details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutsideRoots;

/// Paths that are checked for one call.
const MAX_PATHS: usize = 1000;

/// Checks all paths. The first attempt uses only the kernel's directory cache and cannot block. If the cache is not
/// enough, the check runs on another thread.
pub(super) async fn check(paths: Vec<PathCheck>) -> Result<(), OutsideRoots> {
    if paths.is_empty() {
        return Ok(());
    }
    if paths.len() > MAX_PATHS {
        return Err(OutsideRoots);
    }
    match check_all(&paths, ResolveFlags::CACHED) {
        Resolution::Below => Ok(()),
        Resolution::Outside => Err(OutsideRoots),
        Resolution::WouldBlock => {
            let resolution = tokio::task::spawn_blocking(move || check_all(&paths, ResolveFlags::empty())).await;
            if matches!(resolution, Ok(Resolution::Below)) { Ok(()) } else { Err(OutsideRoots) }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Below,
    Outside,
    WouldBlock,
}

fn check_all(paths: &[PathCheck], how: ResolveFlags) -> Resolution {
    paths
        .iter()
        .map(|path| check_one(path, how))
        .find(|resolution| *resolution != Resolution::Below)
        .unwrap_or(Resolution::Below)
}

fn check_one(path: &PathCheck, how: ResolveFlags) -> Resolution {
    for root in &path.within {
        let Some(rest) = below(&path.value, root) else { continue };
        match resolve(root, rest, how) {
            Ok(true) => return Resolution::Below,
            Ok(false) => {}
            Err(WouldBlock) => return Resolution::WouldBlock,
        }
    }
    Resolution::Outside
}

/// Returns the part of `value` after `root`, if both are absolute and plain, and `value` is at or below `root`.
fn below<'a>(value: &'a str, root: &str) -> Option<&'a str> {
    if !is_plain(value) || !is_plain(root) {
        return None;
    }
    if root == "/" {
        return value.strip_prefix('/');
    }
    let rest = value.strip_prefix(root)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Returns whether the path is absolute and every component is a name.
fn is_plain(path: &str) -> bool {
    let Some(names) = path.strip_prefix('/') else { return false };
    let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
    names.is_empty() || names.split('/').all(plain)
}

/// The cache is not enough to resolve the path.
struct WouldBlock;

/// Returns whether the existing part of `rest` below `root` is free of links. `false` if the root does not exist or is
/// reached through a link.
fn resolve(root: &str, rest: &str, how: ResolveFlags) -> Result<bool, WouldBlock> {
    let no_links = how | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = match openat2(CWD, root, directory, Mode::empty(), no_links) {
        Ok(root) => root,
        Err(Errno::AGAIN) => return Err(WouldBlock),
        Err(_) => return Ok(false),
    };
    let mut existing = rest;
    loop {
        let name = if existing.is_empty() { "." } else { existing };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match openat2(&root, name, flags, Mode::empty(), no_links | ResolveFlags::BENEATH) {
            Ok(_) => return Ok(true),
            // The last component, or a directory above it, does not exist or is a file: check the part above.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                existing = existing.rsplit_once('/').map_or("", |(parent, _)| parent);
            }
            Err(Errno::AGAIN) => return Err(WouldBlock),
            Err(_) => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    struct Tree {
        root: tempfile::TempDir,
    }

    impl Tree {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("w/reports/deep")).unwrap();
            fs::write(root.path().join("w/reports/a.txt"), "a").unwrap();
            fs::write(root.path().join("w/secret.txt"), "s").unwrap();
            fs::write(root.path().join("outside.txt"), "o").unwrap();
            Self { root }
        }

        fn at(&self, path: &str) -> String {
            self.root.path().join(path).to_str().unwrap().to_owned()
        }

        fn check(&self, value: &str, within: &[&str]) -> Resolution {
            let within = within.iter().map(|root| self.at(root)).collect();
            check_one(&PathCheck { value: value.to_owned(), within }, ResolveFlags::empty())
        }

        fn allows(&self, path: &str) -> bool {
            self.check(&self.at(path), &["w/reports"]) == Resolution::Below
        }
    }

    #[test]
    fn paths_that_exist_or_could_be_created_below_a_root_pass() {
        let tree = Tree::new();
        for path in ["w/reports", "w/reports/a.txt", "w/reports/deep", "w/reports/new.txt", "w/reports/new/deep/x.txt"]
        {
            assert!(tree.allows(path), "{path}");
        }
        assert_eq!(tree.check(&tree.at("w/secret.txt"), &["w/reports", "w"]), Resolution::Below, "the second root");
    }

    #[test]
    fn paths_that_are_not_below_a_root_by_their_text_fail() {
        let tree = Tree::new();
        for path in [
            "w/secret.txt",
            "w/reports2/a.txt",
            "outside.txt",
            "w/reports/../secret.txt",
            "w/reports/./a.txt",
            "w/reports//a.txt",
            "w/reports/a.txt/",
            "w/reports/a\0.txt",
        ] {
            let value = format!("{}/{path}", tree.root.path().display());
            assert_eq!(tree.check(&value, &["w/reports"]), Resolution::Outside, "{path}");
        }
        for value in ["", "/", "relative.txt", "~/x", "/etc/passwd"] {
            assert_eq!(tree.check(value, &["w/reports"]), Resolution::Outside, "{value}");
        }
        assert_eq!(tree.check(&tree.at("w/reports/a.txt"), &[]), Resolution::Outside, "without roots, no path passes");
        assert_eq!(tree.check(&tree.at("w/reports/a.txt"), &["missing"]), Resolution::Outside);
    }

    #[test]
    fn a_link_anywhere_in_the_path_fails() {
        let tree = Tree::new();
        symlink("/etc/passwd", tree.at("w/reports/leaf")).unwrap();
        symlink(tree.at("w"), tree.at("w/reports/dir")).unwrap();
        symlink("a.txt", tree.at("w/reports/harmless")).unwrap();
        symlink("/does/not/exist", tree.at("w/reports/dangling")).unwrap();
        symlink(tree.at("w/reports"), tree.at("w/linked-root")).unwrap();
        for path in [
            "w/reports/leaf",
            "w/reports/dir/secret.txt",
            "w/reports/dir",
            "w/reports/harmless",
            "w/reports/dangling",
            "w/reports/dangling/x",
        ] {
            assert!(!tree.allows(path), "{path}");
        }
        assert_eq!(tree.check(&tree.at("w/linked-root/a.txt"), &["w/linked-root"]), Resolution::Outside);
        let magic = PathCheck { value: "/proc/self/root/etc/passwd".to_owned(), within: vec!["/proc".to_owned()] };
        assert_eq!(check_one(&magic, ResolveFlags::empty()), Resolution::Outside);
        assert!(Path::new("/proc/self/root/etc/passwd").exists());
    }

    #[tokio::test]
    async fn one_bad_path_fails_the_check() {
        let tree = Tree::new();
        let check_of = |path: &str| PathCheck { value: tree.at(path), within: vec![tree.at("w/reports")] };
        check(vec![]).await.unwrap();
        check(vec![check_of("w/reports/a.txt"), check_of("w/reports/never/seen")]).await.unwrap();
        assert_eq!(check(vec![check_of("w/reports/a.txt"), check_of("w/secret.txt")]).await, Err(OutsideRoots));
        assert_eq!(check(vec![check_of("w/reports/a.txt"); MAX_PATHS + 1]).await, Err(OutsideRoots));
    }
}
