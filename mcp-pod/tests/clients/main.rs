//! Official MCP clients against a gateway process, with a real shim and a tool server behind it: `cargo xtask test clients`.
//!
//! `tests/clients/` has the clients. Each goes through the same scenario and prints a line for each step.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_debug_implementations,
    dead_code,
    unused_imports
)]

mod cut;
mod long;
mod refused;
mod schemas;
#[path = "../gateway/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Argument, Rule, StringRule};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use support::{Options, Pki, ProcessGateway, Shim, Token, ToolServer, policy, tool, until};

/// Longest time that a client may take for one step. Only a client that waits for an answer that never comes takes longer.
const STEP_TIMEOUT: Duration = Duration::from_mins(5);

/// Starts a gateway in front of the tool server of the client tests.
async fn start() -> (ProcessGateway, ToolServer) {
    let pki = Arc::new(Pki::new());
    let server = ToolServer::start(&pki, concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/clients/server.py"));
    let unused = Arc::new(Shim::start(&pki).await);
    let mut policy = policy(&pki, server.address);
    let optional = |name: &str, rule| Argument { name: name.to_owned(), required: false, rule, shown: None };
    let text = Rule::String(StringRule { max_length: 1000, pattern: None, leading_dash: false });
    let integer = Rule::Integer { minimum: 0, maximum: 3600 };
    let tools = &mut policy.servers[0];
    tools.limits.timeout = Duration::from_mins(15);
    tools.tools = vec![
        tool("echo", Class::Read, vec![optional("text", text.clone()), optional("note", text)]),
        tool("progress", Class::Read, vec![optional("steps", integer.clone())]),
        tool("slow", Class::Read, vec![optional("seconds", integer.clone())]),
        tool("started", Class::Read, vec![]),
        tool("cancelled", Class::Read, vec![]),
        tool("structured", Class::Read, vec![optional("n", integer)]),
    ];
    for principal in &mut policy.principals {
        principal.grants.retain_mut(|grant| {
            Arc::make_mut(grant).tools.clear();
            grant.scope == "files-read"
        });
    }
    policy.built_in_tools = false;
    let options = Options { lease: Duration::from_secs(4), ..Options::default() };
    let gateway = ProcessGateway::start_with(&options, pki, unused, &policy).await;
    // Until the server has reported, the list has no descriptions.
    let mut client = gateway.client(Token::default()).await;
    until("the server has reported", async || {
        let listed = client.modern("tools/list", json!({})).await.json();
        listed["result"]["tools"][0]["description"].is_string()
    })
    .await;
    (gateway, server)
}

/// Returns the command of a client, which comes from the environment, as `cargo xtask test clients` prepares it.
fn client(name: &str) -> Command {
    let command = std::env::var(format!("MCP_CLIENT_{name}"));
    let command = command.expect("the clients are prepared by `cargo xtask test clients`");
    // One word a line, because paths may have spaces.
    let mut words = command.lines();
    let mut process = Command::new(words.next().unwrap());
    // The clients' folder is part of the repository.
    process.args(words).env("PYTHONDONTWRITEBYTECODE", "1");
    if let Ok(packages) = std::env::var(format!("MCP_PACKAGES_{name}")) {
        process.env("PYTHONPATH", packages);
    }
    process
}

/// A running client.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a client.
    fn start(gateway: &ProcessGateway, client: &str, more: &[(&str, &str)]) -> Self {
        Self::start_at(gateway, gateway.address, client, more)
    }

    /// Starts a client that connects to this address.
    fn start_at(gateway: &ProcessGateway, address: SocketAddr, client: &str, more: &[(&str, &str)]) -> Self {
        let ca = gateway.pki.gateway_dir().join("ca.crt");
        let mut process = self::client(client);
        process
            .env("MCP_URL", format!("https://localhost:{}/files/mcp", address.port()))
            .env("MCP_TOKEN", gateway.pki.token(Token::default()))
            .env("MCP_CA", &ca)
            .env("SSL_CERT_FILE", &ca)
            .env("NODE_EXTRA_CA_CERTS", &ca)
            .envs(more.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = process.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Returns the facts of the next step, which has to be this one.
    async fn step(&mut self, name: &str, timeout: Duration) -> Value {
        let line = tokio::time::timeout(timeout, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the client got stuck at the step {name}")).unwrap();
        let line = line.unwrap_or_else(|| panic!("the client ended at the step {name}"));
        let facts: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(facts["step"], name, "{facts}");
        facts
    }

    async fn result(&mut self, name: &str) -> (bool, String) {
        let facts = self.step(name, STEP_TIMEOUT).await;
        (facts["isError"].as_bool().unwrap(), facts["text"].as_str().unwrap().to_owned())
    }
}

/// Lets a client go through the whole scenario.
async fn run(client: &str, more: &[(&str, &str)], version: &str) {
    run_without(client, more, version, &[]).await;
}

/// Lets a client go through the scenario, but not through the steps `left_out`, which it cannot do.
async fn run_without(client: &str, more: &[(&str, &str)], version: &str, left_out: &[&str]) {
    let does = |step| !left_out.contains(&step);
    let (mut gateway, _server) = start().await;
    let mut running = Running::start(&gateway, client, more);
    assert_eq!(running.step("connect", STEP_TIMEOUT).await["version"], version);
    assert_eq!(
        running.step("list", STEP_TIMEOUT).await["tools"],
        json!(["echo", "progress", "slow", "started", "cancelled", "structured"])
    );
    assert_eq!(running.result("call").await, (false, r#"{"text": "hello"}"#.to_owned()));
    assert_eq!(running.result("null").await, (false, r#"{"text": "hello"}"#.to_owned()), "null is not forwarded");
    let (refused, text) = running.result("refused").await;
    assert!(refused && text.contains("argument_type") && text.contains("`text`"), "{text}");
    let (refused, text) = running.result("large").await;
    assert!(refused && text.contains("argument_out_of_range") && text.contains("`text`"), "{text}");
    assert_eq!(running.result("structured").await, (false, r#"{"n": 7}"#.to_owned()));
    // Clients that hold results to the output schema do not hold errors to it.
    let (refused, text) = running.result("structured-refused").await;
    assert!(refused && text.contains("argument_out_of_range") && text.contains("`n`"), "{text}");
    assert_eq!(running.result("structured-failed").await, (true, "nothing to count".to_owned()));
    if does("unknown") {
        assert_eq!(running.step("unknown", STEP_TIMEOUT).await["code"], -32602);
    }
    if does("progress") {
        let seen = running.step("progress", STEP_TIMEOUT).await["seen"].clone();
        let seen: Vec<_> = seen.as_array().unwrap().iter().map(|progress| progress.as_f64().unwrap()).collect();
        assert_eq!(seen, [1.0, 2.0, 3.0]);
    }
    if does("cancel") {
        assert!(running.result("cancel").await.0, "a cancelled call has a result");
        assert_ne!(running.result("cancelled").await.1, "0", "the server heard of no cancellation");
    }
    running.step("restart", STEP_TIMEOUT).await;
    gateway.restart().await;
    running.child.stdin.as_mut().unwrap().write_all(b"go on\n").await.unwrap();
    assert_eq!(running.result("again").await, (false, r#"{"text": "again"}"#.to_owned()));
}

const LEGACY: (&str, &str) = ("MCP_ERA", "legacy");
const MODERN: (&str, &str) = ("MCP_ERA", "modern");

#[tokio::test]
async fn python_1() {
    run("PYTHON_1", &[], "2025-11-25").await;
}

#[tokio::test]
async fn python_2_legacy() {
    run("PYTHON_2", &[LEGACY], "2025-11-25").await;
}

#[tokio::test]
async fn python_2_modern() {
    run("PYTHON_2", &[MODERN], "2026-07-28").await;
}

#[tokio::test]
async fn typescript_1() {
    run("NODE", &[("MCP_SDK", "1")], "2025-11-25").await;
}

#[tokio::test]
async fn typescript_2_legacy() {
    run("NODE", &[("MCP_SDK", "2"), LEGACY], "2025-11-25").await;
}

#[tokio::test]
async fn typescript_2_modern() {
    run("NODE", &[("MCP_SDK", "2"), MODERN], "2026-07-28").await;
}

#[tokio::test]
async fn go_legacy() {
    run("GO", &[LEGACY], "2025-11-25").await;
}

#[tokio::test]
async fn go_modern() {
    run("GO", &[MODERN], "2026-07-28").await;
}

#[tokio::test]
async fn rust_legacy() {
    run("RUST", &[LEGACY], "2025-11-25").await;
}

#[tokio::test]
async fn rust_modern() {
    run("RUST", &[MODERN], "2026-07-28").await;
}

#[tokio::test]
#[ignore = "one of the further clients: `cargo xtask test more-clients`"]
async fn more_fastmcp() {
    run("FASTMCP", &[LEGACY], "2025-11-25").await;
    run("FASTMCP", &[MODERN], "2026-07-28").await;
}

#[tokio::test]
#[ignore = "one of the further clients: `cargo xtask test more-clients`"]
async fn more_langchain() {
    run("LANGCHAIN", &[], "2025-11-25").await;
}

#[tokio::test]
#[ignore = "one of the further clients: `cargo xtask test more-clients`"]
async fn more_java() {
    run("JAVA", &[], "2025-11-25").await;
}

/// Steps that the command line of the Inspector cannot do: it calls only tools that it has listed, shows no progress, and
/// cancels a call by hanging up, which counts as cancelling only since 2026-07-28.
const NOT_BY_INSPECTOR: &[&str] = &["unknown", "progress", "cancel"];

#[tokio::test]
#[ignore = "one of the further clients: `cargo xtask test more-clients`"]
async fn more_inspector() {
    run_without("INSPECTOR", &[LEGACY], "2025-11-25", NOT_BY_INSPECTOR).await;
    run_without("INSPECTOR", &[MODERN], "2026-07-28", &["unknown", "progress"]).await;
}
