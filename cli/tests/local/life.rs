//! How it starts and ends.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::support::{Trial, command, example, refusal, text, until};

/// Returns all processes that descend from a process.
fn descendants(of: i32) -> BTreeSet<i32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()) else { continue };
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let parent =
            status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|text| text.trim().parse().ok());
        parents.extend(parent.map(|parent: i32| (pid, parent)));
    }
    let mut found = BTreeSet::from([of]);
    loop {
        let children: BTreeSet<i32> =
            parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid).collect();
        if children.iter().all(|child| !found.insert(*child)) {
            break;
        }
    }
    found.remove(&of);
    found
}

fn runs(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses.
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn nothing_outlives_a_crash() {
    let mut trial = Trial::start(&[]);
    let started = descendants(trial.pid().as_raw_nonzero().get());
    // The gateway, and the two steps of an enclosure, of which the second became the shim, with the server.
    assert!(started.len() >= 4, "{started:?}");
    kill_process(trial.pid(), Signal::KILL).unwrap();
    trial.wait();
    until("all processes have ended", || started.iter().all(|pid| !runs(*pid)).then_some(()));
    // What a crash left behind is no obstacle.
    let trial = Trial::start_in(trial.into_folder(), &[]);
    text(&trial.call("reader", "list_notes", &json!({})));
}

#[test]
fn nothing_outlives_an_interrupt() {
    let mut trial = Trial::start(&[]);
    let started = descendants(trial.pid().as_raw_nonzero().get());
    trial.interrupt();
    trial.wait();
    assert!(started.iter().all(|pid| !runs(*pid)));
}

#[test]
fn a_killed_gateway_and_a_killed_server_are_started_again() {
    let trial = Trial::start(&[]);
    for name in ["gateway", "example-server"] {
        let of_name = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == name.as_bytes())
        };
        let pid = descendants(trial.pid().as_raw_nonzero().get()).into_iter().rfind(of_name).unwrap();
        kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        until("calls work again", || {
            let answered = std::panic::catch_unwind(|| trial.call("reader", "list_notes", &json!({})));
            answered.is_ok_and(|answer| answer["result"]["isError"] == false).then_some(())
        });
    }
}

#[test]
fn two_cannot_use_the_same_files() {
    let trial = Trial::start(&[]);
    let errors = refusal(command(trial.folder(), &[]));
    assert!(errors.contains("these files are being tried already, by process"), "{errors}");
}

#[test]
fn what_a_cluster_refuses_is_refused_before_anything_starts() {
    let refused = |file: &str, from: &str, to: &str| {
        let folder = example();
        let path = folder.path().join("files").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        refusal(command(folder.path(), &[]))
    };
    let errors = refused("10-tenant.yaml", "lifetime: 1h", "lifetime: 10s");
    assert!(
        errors.contains("10-tenant.yaml:") && errors.contains("credentials.lifetime must be between 1m and 168h"),
        "{errors}"
    );
    let errors = refused("20-notes.yaml", "namespace: acme", "namespace: other");
    assert!(errors.contains("the namespace other belongs to no MCPTenant"), "{errors}");
    let errors = refused("10-tenant.yaml", "kind: MCPTenant", "kind: MCPTenants");
    assert!(errors.contains("10-tenant.yaml:3: no matches for kind \"MCPTenants\""), "{errors}");
    let errors = refused("20-notes.yaml", "command: [mcp-fleet, ", "command: [/usr/local/bin/notes, ");
    assert!(errors.contains("cannot run without a container") && errors.contains("--server-command"), "{errors}");
}

#[test]
fn a_port_is_fixed_by_the_command_line() {
    // Keeps its port from all others who ask for a free one, and not from a listener (socket(7), `SO_REUSEADDR`).
    let reserved = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_reuseaddr(&reserved, true).unwrap();
    bind(&reserved, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: SocketAddrV4 = getsockname(&reserved).unwrap().try_into().unwrap();
    let port = address.port().to_string();
    let busy = std::net::TcpListener::bind(address).unwrap();
    let folder = example();
    let errors = refusal(command(folder.path(), &["--port", &port]));
    assert!(errors.contains(&format!("port {port} for the tenant acme is not free")), "{errors}");
    drop(busy);
    let trial = Trial::start_in(folder, &["--port", &port]);
    assert_eq!(trial.credential("reader", "url"), format!("https://localhost:{port}"));
}

#[test]
fn the_audit_log_is_one_chain_for_each_start() {
    let trial = Trial::start(&[]);
    text(&trial.call("reader", "list_notes", &json!({})));
    let trial = trial.restart();
    text(&trial.call("reader", "list_notes", &json!({})));
    until("both calls are in the log", || (trial.audit().len() >= 2).then_some(()));
    let log = trial.state().join("audit/acme.jsonl");
    let verified =
        std::process::Command::new(env!("CARGO_BIN_EXE_mcp-fleet")).args(["audit", "verify"]).arg(log).output();
    let verified = verified.unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn without_user_namespaces_nothing_starts() {
    let folder = example();
    let command = command(folder.path(), &[]);
    // In a user namespace that may have no others.
    let mut without = std::process::Command::new("unshare");
    without.args(["--user", "--map-root-user", "sh", "-c"]);
    without.arg("echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" \"$@\"");
    without.arg(command.get_program()).args(command.get_args()).stderr(std::process::Stdio::piped());
    let errors = refusal(without);
    assert!(errors.contains("so nothing is started") && errors.contains("user.max_user_namespaces"), "{errors}");
}

#[test]
fn the_state_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let trial = Trial::start(&[]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = trial.state().join("credentials/acme/reader");
    for entry in ["token", "url", "ca.crt", "expiresAt", "rotatesAt"] {
        assert_eq!(mode(&folder.join(entry)), 0o600, "{entry}");
    }
    assert_eq!((mode(&trial.state()), mode(&folder)), (0o700, 0o700));
    assert_eq!(mode(&trial.state().join("operator/ca.key")), 0o600);
}

#[test]
#[cfg(not(feature = "server-tests"))]
fn a_server_over_http_is_refused() {
    let folder = example();
    let path = folder.path().join("files/20-notes.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let http = text.replacen("type: Stdio", "type: HTTP", 1).replacen("stdio:", "http:", 1);
    std::fs::write(&path, http.replacen("command:", "port: 8000\n      command:", 1)).unwrap();
    let errors = refusal(command(folder.path(), &[]));
    assert!(errors.contains("everyone on this machine could call it on its port"), "{errors}");
}
