//! Programs in Java, for tests, built with Maven and the JDK, which are Debian packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::cache::{self, Key};
use super::debian::{self, Package};
use super::{command, progress};

/// Packages that build and run a program in Java.
const JAVA: &[Package] =
    &[Package { provides: "mvn", name: "maven" }, Package { provides: "javac", name: "openjdk-17-jdk-headless" }];

/// Builds the program in the folder `source`, if it is not in the cache, where it is in this group. Its `pom.xml` builds into
/// the folder that the property `property` names. Returns that folder, with `classes` and `dependency`. `what` names the program in the
/// progress line.
pub fn build(source: &Path, group: &str, property: &str, what: &str) -> Result<PathBuf> {
    debian::require(JAVA)?;
    let key = Key::default().path(source)?.finish();
    cache::folder(group, "java", &key, |folder| {
        let mut build = Command::new("mvn");
        build.args(["--batch-mode", "--quiet", "--file"]).arg(source.join("pom.xml"));
        build.arg(format!("-D{property}={}", folder.display())).args(["compile", "dependency:copy-dependencies"]);
        progress::step(format!("building {what}"), "20 s", || command::run(&mut build))
    })
}

/// Returns the class path of a program that was built.
pub fn class_path(folder: &Path) -> String {
    format!("{0}/classes:{0}/dependency/*", folder.display())
}
