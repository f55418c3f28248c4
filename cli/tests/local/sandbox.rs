//! What a server sees of this machine.

use std::fs;
use std::path::Path;

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
    assert!(!Path::new("/usr/x").exists());
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

#[test]
fn a_server_is_configured_with_secrets_files_and_scratch() {
    let folder = example();
    let config = "apiVersion: v1\nkind: Secret\nmetadata: {name: api, namespace: acme, labels: {mcp-fleet.dev/server.notes: ''}}\n\
                  stringData: {token: token-1}\n---\n\
                  apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: acme}\n\
                  data: {a.toml: setting-1}\n";
    fs::write(folder.path().join("files/25-config.yaml"), config).unwrap();
    let lines = "pwd >&2; echo \"$TOKEN and $1\" >&2; cat /etc/notes/a.toml >&2; echo x > /etc/notes/a.toml; \
                 printf \"#!/bin/sh\\necho it-ran >&2\\n\" > /var/cache/x; chmod 755 /var/cache/x; /var/cache/x; \
                 printf \"#!/bin/sh\\necho it-ran-too >&2\\n\" > /tmp/x; chmod 755 /tmp/x; /tmp/x; df -k /var/cache >&2";
    let start = |lines: &str| {
        format!(
            "notes=/bin/sh -c '{lines}; echo probe-$((6*7)) >&2; exec /opt/mcp-fleet/bin/mcp-fleet example-server /workspace' sh"
        )
    };
    let path = folder.path().join("files/20-notes.yaml");
    let stdio = "      args: [argument-1]\n\
                 \x20     env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: api, key: token}}}]\n\
                 \x20     files: [{mountPath: /etc/notes, configMapRef: {name: settings}}]\n\
                 \x20     scratch: [{mountPath: /var/cache, sizeLimit: 3Mi, execute: Allow}]\n\
                 \x20     workingDir: /var/cache\n      command:";
    fs::write(&path, fs::read_to_string(&path).unwrap().replacen("      command:", stdio, 1)).unwrap();
    let trial = Trial::start_in(folder, &["--server-command", &start(lines)]);
    text(&trial.call("reader", "list_notes", &json!({})));
    let seen = log(&trial);
    for expected in ["/var/cache", "token-1 and argument-1", "setting-1", "it-ran", "3072"] {
        assert!(seen.contains(expected), "{expected}: {seen}");
    }
    assert!(!seen.contains("it-ran-too") && seen.contains("/tmp/x: Permission denied"), "{seen}");
    assert!(seen.contains("cannot create /etc/notes/a.toml"), "{seen}");
    assert!(!trial.output().contains("token-1"));
    // Only the log, in which the program wrote it.
    assert_eq!(files_with(&trial.state(), "token-1"), ["logs/server-acme-notes.log"]);
    let restarted = |text: &str| until(text, || log_now(&trial).contains(text).then_some(()));
    trial.edit("25-config.yaml", "token-1", "token-2");
    restarted("token-2 and argument-1");
    trial.edit("20-notes.yaml", "      args: [argument-1]", "      onChange: Ignore\n      args: [argument-2]");
    restarted("token-2 and argument-2");
    trial.edit("25-config.yaml", "token-2", "token-3");
    trial.edit("20-notes.yaml", "argument-2", "argument-3");
    restarted("token-3 and argument-3");
    assert!(!log_now(&trial).contains("token-3 and argument-2"), "it was started again for that");
}

/// Returns the files below a folder that contain a text.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(text) {
                found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn log_now(trial: &Trial) -> String {
    fs::read_to_string(trial.state().join("logs/server-acme-notes.log")).unwrap()
}
