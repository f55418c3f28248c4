//! Checks path arguments against the file system that the server uses, where links can be resolved.
//!
//! The gateway has checked the text of each path. Here, every existing part of it must be a real directory or file below
//! one of the granted roots, without any link (openat2(2) with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`,
//! `RESOLVE_NO_MAGICLINKS`). The end of a path may not exist yet, so that a tool can create files. No link can appear
//! between the check and the server's access, because the sandbox does not let the server create or move links.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::envelope::PathCheck;

/// Why the paths of a call are refused. The text does not contain them: argument values are kept out of details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathRejection {
    #[error("a path leads out of the granted roots, or through a link")]
    Outside,
    #[error("a path has more than {MAX_COMPONENTS} components")]
    TooDeep,
    #[error("the call has more than {MAX_PATHS} paths")]
    TooMany,
}

/// Paths that are checked for one call.
const MAX_PATHS: usize = 1000;
/// Components of a path. The kernel looks up each of them, so this bounds the work for a path.
const MAX_COMPONENTS: usize = 64;

/// Checks all paths. The first attempt uses only the kernel's directory cache and cannot block. If the cache is not
/// enough, the check runs on another thread.
pub(super) async fn check(paths: Vec<PathCheck>) -> Result<(), PathRejection> {
    if paths.is_empty() {
        return Ok(());
    }
    if paths.len() > MAX_PATHS {
        return Err(PathRejection::TooMany);
    }
    if paths.iter().any(|path| components(&path.value) > MAX_COMPONENTS) {
        return Err(PathRejection::TooDeep);
    }
    let resolution = match Resolver::new(ResolveFlags::CACHED).check_all(&paths) {
        Resolution::WouldBlock => {
            let check = move || Resolver::new(ResolveFlags::empty()).check_all(&paths);
            tokio::task::spawn_blocking(check).await.unwrap_or(Resolution::Outside)
        }
        resolution => resolution,
    };
    if resolution == Resolution::Below { Ok(()) } else { Err(PathRejection::Outside) }
}

/// Returns the number of components of an absolute path.
fn components(path: &str) -> usize {
    memchr::memchr_iter(b'/', path.as_bytes()).count()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Below,
    Outside,
    WouldBlock,
}

/// Resolves the paths of one call. Each distinct root is opened once, and each path below it costs one system call.
struct Resolver<'a> {
    how: ResolveFlags,
    /// The roots opened so far; `None` for one that does not exist or is reached through a link.
    roots: Vec<(&'a str, Option<OwnedFd>)>,
}

/// The cache is not enough to resolve the path.
struct WouldBlock;

impl<'a> Resolver<'a> {
    fn new(how: ResolveFlags) -> Self {
        let how = how | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Self { how, roots: Vec::new() }
    }

    fn check_all(&mut self, paths: &'a [PathCheck]) -> Resolution {
        paths
            .iter()
            .map(|path| self.check_one(path))
            .find(|resolution| *resolution != Resolution::Below)
            .unwrap_or(Resolution::Below)
    }

    fn check_one(&mut self, path: &'a PathCheck) -> Resolution {
        for root in &path.within {
            let Some(rest) = below(&path.value, root) else { continue };
            match self.resolve(root, rest) {
                Ok(true) => return Resolution::Below,
                Ok(false) => {}
                Err(WouldBlock) => return Resolution::WouldBlock,
            }
        }
        Resolution::Outside
    }

    /// Returns whether the existing part of `rest` below `root` is free of links. `false` if the root does not exist or
    /// is reached through a link.
    ///
    /// The kernel resolves a path from the left and reports the first component that it cannot pass
    /// (path_resolution(7)). So if that one does not exist, or is below a file, then there was no link before it.
    fn resolve(&mut self, root: &'a str, rest: &str) -> Result<bool, WouldBlock> {
        let index = self.root(root)?;
        let Some((_, Some(root))) = self.roots.get(index) else { return Ok(false) };
        let name = if rest.is_empty() { "." } else { rest };
        match open(root, name, OFlags::empty(), self.how | ResolveFlags::BENEATH) {
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(true),
            Err(Errno::AGAIN) => Err(WouldBlock),
            Err(_) => Ok(false),
        }
    }

    /// Opens a root, unless that was done before, and returns its index.
    fn root(&mut self, path: &'a str) -> Result<usize, WouldBlock> {
        if let Some(index) = self.roots.iter().position(|(known, _)| *known == path) {
            return Ok(index);
        }
        let root = match open(CWD, path, OFlags::DIRECTORY, self.how) {
            Ok(root) => Some(root),
            Err(Errno::AGAIN) => return Err(WouldBlock),
            Err(_) => None,
        };
        self.roots.push((path, root));
        Ok(self.roots.len() - 1)
    }
}

/// Opens a handle on a path, which gives no access to its content.
fn open(directory: impl AsFd, path: &str, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    #[cfg(test)]
    tests::OPENED.set(tests::OPENED.get() + 1);
    openat2(directory, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    thread_local! {
        /// System calls made so far.
        pub(super) static OPENED: Cell<usize> = const { Cell::new(0) };
    }

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
            Resolver::new(ResolveFlags::empty()).check_one(&PathCheck { value: value.to_owned(), within })
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
        assert_eq!(Resolver::new(ResolveFlags::empty()).check_one(&magic), Resolution::Outside);
        assert!(Path::new("/proc/self/root/etc/passwd").exists());
    }

    #[tokio::test]
    async fn one_bad_path_fails_the_check() {
        let tree = Tree::new();
        let check_of = |path: &str| PathCheck { value: tree.at(path), within: vec![tree.at("w/reports")] };
        check(vec![]).await.unwrap();
        check(vec![check_of("w/reports/a.txt"), check_of("w/reports/never/seen")]).await.unwrap();
        assert_eq!(
            check(vec![check_of("w/reports/a.txt"), check_of("w/secret.txt")]).await,
            Err(PathRejection::Outside)
        );
        assert_eq!(check(vec![check_of("w/reports/a.txt"); MAX_PATHS + 1]).await, Err(PathRejection::TooMany));
    }

    #[tokio::test]
    async fn a_path_of_more_than_64_components_fails_and_the_text_says_so() {
        let check_of =
            |components: usize| check(vec![PathCheck { value: "/a".repeat(components), within: vec!["/".to_owned()] }]);
        check_of(64).await.unwrap();
        let rejection = check_of(65).await.unwrap_err();
        assert_eq!(rejection.to_string(), "a path has more than 64 components");
    }

    #[test]
    fn every_path_costs_one_system_call_and_so_does_every_root() {
        let tree = Tree::new();
        let within = vec![tree.at("missing"), tree.at("w/reports")];
        let missing = format!("{}{}", tree.at("w/reports"), "/new".repeat(40));
        let values = [tree.at("w/reports/a.txt"), tree.at("w/reports/deep"), missing, tree.at("w/reports/a.txt/below")];
        let paths: Vec<_> = values.map(|value| PathCheck { value, within: within.clone() }).into();
        let before = OPENED.get();
        assert_eq!(Resolver::new(ResolveFlags::empty()).check_all(&paths), Resolution::Below);
        assert_eq!(OPENED.get() - before, 5, "four paths below one root");
    }
}
