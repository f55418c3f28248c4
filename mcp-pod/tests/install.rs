//! `mcp-pod install`, as the init container of a tool pod runs it.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

#[test]
fn the_copy_runs_and_replaces_the_old_file() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let target = dir.path().join("mcp-pod");
    std::fs::write(&target, "old").unwrap();
    let install = || Command::new(env!("CARGO_BIN_EXE_mcp-pod")).arg("install").arg(&target).output().unwrap();
    assert!(install().status.success());
    assert_eq!(target.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    let version = Command::new(&target).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("mcp-pod "));
    // Replaces its own copy as well.
    assert!(install().status.success());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn the_error_names_a_target_that_cannot_be_written() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_mcp-pod")).args(["install", "/does/not/exist/mcp-pod"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/does/not/exist/mcp-pod"));
}
