//! `mcp-fleet audit`, as a user runs it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use mcp_fleet_audit::{Chain, Head};
use ulid::Ulid;

/// Writes a log with this many audit lines between other lines. Returns its path and its head.
fn log(folder: &Path, count: usize) -> (PathBuf, Head) {
    let (mut chain, mut out) = (Chain::new(Ulid::from_parts(1, 7)), Vec::new());
    for _ in 0..count {
        chain.link(br#"{"audit":1,"decision":"allowed""#, &mut out);
        out.extend_from_slice(b"{\"level\":\"INFO\"}\n");
    }
    let path = folder.join("gateway.log");
    std::fs::write(&path, out).unwrap();
    (path, chain.head().unwrap())
}

/// Returns the exit code and the output.
fn verify(arguments: &[&str], log: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"));
    let output = command.args(["audit", "verify"]).args(arguments).arg(log).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Writes checkpoints as kubectl prints them. Returns the path.
fn checkpoints(folder: &Path, Head { chain, sequence, digest }: Head) -> String {
    let entry =
        serde_json::json!({"pod": "gateway-1", "sequence": sequence, "digest": digest, "time": "2026-11-26T00:00:00Z"});
    let map = serde_json::json!({"kind": "ConfigMap", "data": {chain.to_string(): entry.to_string()}});
    let path = folder.join("checkpoints.json");
    std::fs::write(&path, serde_json::json!({"kind": "List", "items": [map]}).to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_complete_log_is_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let (log, head) = log(folder.path(), 3);
    let (code, text) = verify(&["--checkpoints", &checkpoints(folder.path(), head)], &log);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("lines 1 to 3, confirmed up to line 3") && text.contains("problems: 0"), "{text}");
    let (code, text) = verify(&[], &log);
    assert!(code == 0 && text.contains("without checkpoints"), "{text}");
}

#[test]
fn a_log_without_its_end_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (log, head) = log(folder.path(), 3);
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().take(2).collect();
    std::fs::write(&log, lines.join("\n")).unwrap();
    let (code, text) = verify(&["--checkpoints", &checkpoints(folder.path(), head)], &log);
    assert!(code == 1 && text.contains("pod gateway-1 wrote lines 2 to 3, which are missing"), "{text}");
}

#[test]
fn a_changed_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = log(folder.path(), 3);
    let text = std::fs::read_to_string(&log).unwrap().replacen("allowed", "denied", 1);
    std::fs::write(&log, text).unwrap();
    let (code, text) = verify(&[], &log);
    assert!(code == 1 && text.contains("gateway.log:1: line 1 of chain"), "{text}");
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = verify(&[], &folder.path().join("missing.log"));
    assert!(code == 2 && text.contains("missing.log"), "{text}");
    let (log, _) = log(folder.path(), 1);
    let wrong = folder.path().join("wrong.json");
    std::fs::write(&wrong, r#"{"kind":"Secret"}"#).unwrap();
    let (code, text) = verify(&["--checkpoints", wrong.to_str().unwrap()], &log);
    assert!(code == 2 && text.contains("it is a Secret, but must be a ConfigMap"), "{text}");
}

#[test]
fn export_writes_events_and_names_broken_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.log");
    let good = r#"{"audit":1,"time":"2026-11-26T20:00:00Z","decision":"allowed","tool":"a=b","generation":1}"#;
    std::fs::write(&path, format!("{good}\nstarted\n{{\"audit\":1}}\n{good}\n")).unwrap();
    let export = |format: &str, log: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"));
        let output = command.args(["audit", "export", "--format", format]).arg(log).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, events, problems) = export("cef", &path);
    assert_eq!((code, events.lines().count(), problems.lines().count()), (1, 2, 1), "{events}{problems}");
    assert!(events.contains(r"mcpFleetTool=a\=b"), "{events}");
    assert!(problems.contains("gateway.log:3: an audit line cannot be exported: missing field `time`"), "{problems}");
    std::fs::write(&path, format!("{good}\n")).unwrap();
    let (code, events, problems) = export("ocsf", &path);
    assert_eq!((code, problems.as_str()), (0, ""));
    let event: serde_json::Value = serde_json::from_str(&events).unwrap();
    assert_eq!(event["class_uid"], 6003);
    assert_eq!(export("ocsf", &folder.path().join("missing.log")).0, 2);
}
