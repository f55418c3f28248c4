//! Resolves path arguments where links can be followed: in the file system that the server is about to use.
//!
//! The gateway has checked the text; here every existing part of the path has to be a real directory or file below
//! one of the granted roots, and no link at all (openat2(2) with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`,
//! `RESOLVE_NO_MAGICLINKS`). What does not exist yet is fine, so that files can be made. Between the check and the
//! server's own use nothing can slip a link in, because the sandbox does not let the server make or move one.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::envelope::PathCheck;

/// A path that is not, or may not be, below its roots. Which one is not said: values do not travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outside;

/// Bounds the work of one check.
const MAX_PATHS: usize = 1000;

/// Checks all paths. The first attempt takes only what the kernel has cached, which cannot block; file systems that
/// have to look things up do so on another thread.
pub(super) async fn check(paths: Vec<PathCheck>) -> Result<(), Outside> {
    if paths.is_empty() {
        return Ok(());
    }
    if paths.len() > MAX_PATHS {
        return Err(Outside);
    }
    match check_all(&paths, ResolveFlags::CACHED) {
        Verdict::Below => Ok(()),
        Verdict::Outside => Err(Outside),
        Verdict::WouldBlock => {
            let verdict = tokio::task::spawn_blocking(move || check_all(&paths, ResolveFlags::empty())).await;
            if matches!(verdict, Ok(Verdict::Below)) { Ok(()) } else { Err(Outside) }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Below,
    Outside,
    WouldBlock,
}

fn check_all(paths: &[PathCheck], how: ResolveFlags) -> Verdict {
    paths.iter().map(|path| check_one(path, how)).find(|verdict| *verdict != Verdict::Below).unwrap_or(Verdict::Below)
}

fn check_one(path: &PathCheck, how: ResolveFlags) -> Verdict {
    for root in &path.within {
        let Some(rest) = below(&path.value, root) else { continue };
        match resolve(root, rest, how) {
            Ok(true) => return Verdict::Below,
            Ok(false) => {}
            Err(WouldBlock) => return Verdict::WouldBlock,
        }
    }
    Verdict::Outside
}

/// What follows `root` in `value`, if both are absolute and plain, and one is at or below the other.
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

/// Absolute, and every component is a name.
fn is_plain(path: &str) -> bool {
    let Some(names) = path.strip_prefix('/') else { return false };
    let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
    names.is_empty() || names.split('/').all(plain)
}

/// The cache does not know.
struct WouldBlock;

/// Whether everything of `rest` that exists below `root` is free of links. A root that does not exist, or is reached
/// by a link, has nothing below it.
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
            // The leaf, or a directory above it, is not there (yet), or is a file: the part above has to be clean.
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

        fn verdict(&self, value: &str, within: &[&str]) -> Verdict {
            let within = within.iter().map(|root| self.at(root)).collect();
            check_one(&PathCheck { value: value.to_owned(), within }, ResolveFlags::empty())
        }

        fn allows(&self, path: &str) -> bool {
            self.verdict(&self.at(path), &["w/reports"]) == Verdict::Below
        }
    }

    #[test]
    fn what_exists_below_a_root_or_could_be_made_there_passes() {
        let tree = Tree::new();
        for path in ["w/reports", "w/reports/a.txt", "w/reports/deep", "w/reports/new.txt", "w/reports/new/deep/x.txt"]
        {
            assert!(tree.allows(path), "{path}");
        }
        assert_eq!(tree.verdict(&tree.at("w/secret.txt"), &["w/reports", "w"]), Verdict::Below, "the second root");
    }

    #[test]
    fn what_is_not_below_lexically_does_not() {
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
            assert_eq!(tree.verdict(&value, &["w/reports"]), Verdict::Outside, "{path}");
        }
        for value in ["", "/", "relative.txt", "~/x", "/etc/passwd"] {
            assert_eq!(tree.verdict(value, &["w/reports"]), Verdict::Outside, "{value}");
        }
        assert_eq!(tree.verdict(&tree.at("w/reports/a.txt"), &[]), Verdict::Outside, "no root admits nothing");
        assert_eq!(tree.verdict(&tree.at("w/reports/a.txt"), &["missing"]), Verdict::Outside);
    }

    #[test]
    fn no_link_is_followed_wherever_it_stands() {
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
        assert_eq!(tree.verdict(&tree.at("w/linked-root/a.txt"), &["w/linked-root"]), Verdict::Outside);
        let magic = PathCheck { value: "/proc/self/root/etc/passwd".to_owned(), within: vec!["/proc".to_owned()] };
        assert_eq!(check_one(&magic, ResolveFlags::empty()), Verdict::Outside);
        assert!(Path::new("/proc/self/root/etc/passwd").exists());
    }

    #[tokio::test]
    async fn one_bad_path_refuses_the_call() {
        let tree = Tree::new();
        let check_of = |path: &str| PathCheck { value: tree.at(path), within: vec![tree.at("w/reports")] };
        check(vec![]).await.unwrap();
        check(vec![check_of("w/reports/a.txt"), check_of("w/reports/never/seen")]).await.unwrap();
        assert_eq!(check(vec![check_of("w/reports/a.txt"), check_of("w/secret.txt")]).await, Err(Outside));
        assert_eq!(check(vec![check_of("w/reports/a.txt"); MAX_PATHS + 1]).await, Err(Outside));
    }
}
