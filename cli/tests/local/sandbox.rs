//! What a server sees of this machine.

use std::fs;

use serde_json::json;

use crate::support::{Trial, example, text, until};

/// What a probe writes to its log last, before it is the server.
const DONE: &str = "probe-42";

/// A program that writes to its log what it can do, and then is the example's server.
fn probe(lines: &str) -> String {
    format!(
        "notes=/bin/sh -c '{lines}; echo probe-$((6*7)) >&2; exec /opt/mcp-fleet/bin/mcp-fleet example-server /workspace'"
    )
}

/// Returns what was printed before the server started. It is logged a moment after it was printed.
fn log(trial: &Trial) -> String {
    let path = trial.state().join("logs/server-acme-notes.log");
    until("the log is complete", || Some(fs::read_to_string(&path).unwrap()).filter(|log| log.contains(DONE)))
}

#[test]
fn a_server_sees_the_system_and_its_workspace_only() {
    let folder = example();
    let secret = folder.path().join("secret.txt");
    fs::write(&secret, "the-secret").unwrap();
    let home = std::env::var("HOME").unwrap();
    let lines = format!(
        "ls / {home} >&2; cat {} >&2; cat /proc/*/cmdline >&2; echo x > /usr/x; chmod 755 /usr/bin/env >&2; echo z > /dev/tty; \
         echo y > /workspace/made; ls /mcp-fleet/tls >&2",
        secret.display()
    );
    let trial = Trial::start_in(folder, &["--server-command", &probe(&lines)]);
    text(&trial.call("reader", "list_notes", &json!({})));
    let log = log(&trial);
    assert!(log.contains(&format!("cannot access '{home}': No such file")), "{log}");
    assert!(!log.contains("the-secret") && log.contains("secret.txt: No such file"), "{log}");
    assert!(
        log.contains("mcp-pod\\u0000shim") && !log.contains("mcp-pod\\u0000gateway"),
        "it sees processes of this machine: {log}"
    );
    assert_eq!(fs::read_to_string(trial.state().join("workspaces/acme/notes/made")).unwrap(), "y\n");
    assert!(!std::path::Path::new("/usr/x").exists());
    assert!(log.contains("Read-only file system"), "it changes the mode of a program of this machine: {log}");
    assert!(log.contains("cannot create /dev/tty") || log.contains("/dev/tty: "), "it has a terminal: {log}");
    assert!(!log.contains("tls.key"), "it sees the key of its shim: {log}");
}

#[test]
fn a_folder_that_is_named_is_readable() {
    // Not in the folder of the example, which is in the checkout: that can be below /tmp, and a server has its own.
    let own = tempfile::tempdir_in("/var/tmp").unwrap();
    let own = own.path();
    fs::write(own.join("data.txt"), "own-data").unwrap();
    let lines = format!("cat {0}/data.txt >&2; echo x > {0}/new", own.display());
    let named = format!("notes={}", own.display());
    let trial = Trial::start(&["--server-command", &probe(&lines), "--server-folder", &named]);
    assert!(log(&trial).contains("own-data"), "{}", log(&trial));
    assert!(!own.join("new").exists(), "it may be read, and not written");
}
