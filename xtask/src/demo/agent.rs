//! The MCP clients that run in a tenant's agent pod: the MCP Inspector, and the demo's own client for requests that the
//! Inspector refuses to make.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::state::Demo;

/// Source of the demo's own client.
const CLIENT: &str = include_str!("client.mjs");

/// Protocol era, as the Inspector calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// MCP revision 2025-11-25: with `initialize` and a session.
    Legacy,
    /// MCP revision 2026-07-28: stateless.
    Modern,
}

/// The server that a call goes to, and the token that it uses.
#[derive(Clone, Debug)]
pub struct Target {
    /// Namespace of the agent pod that makes the call.
    pub from: &'static str,
    /// Runtime namespace of the gateway.
    pub runtime: &'static str,
    /// Name of the MCP server.
    pub server: &'static str,
    /// Bearer token; `None` sends no token.
    pub token: Option<String>,
}

impl Target {
    fn url(&self) -> String {
        format!("https://gateway.{}.svc/{}/mcp", self.runtime, self.server)
    }
}

/// Result of one run of the Inspector.
#[derive(Debug)]
pub struct Response {
    /// Exit code.
    pub exit: i32,
    /// Result of the MCP method, if there is one.
    pub result: Option<Value>,
    /// Error of the Inspector, if there is one: `code`, `message`, `status`.
    pub error: Option<Value>,
}

impl Response {
    /// Returns the text of a successful result, or an error.
    pub fn text(&self) -> Result<String> {
        match &self.result {
            Some(result) if result["isError"] != json!(true) => Ok(content(result)),
            _ => bail!("expected a result, got {}", self.shown()),
        }
    }

    /// Returns reason and text of a refused call.
    pub fn refusal(&self) -> Result<(String, String)> {
        let result = self.result.as_ref().filter(|result| result["isError"] == json!(true));
        let Some(result) = result else { bail!("expected a refusal, got {}", self.shown()) };
        let reason = result["_meta"]["mcp-fleet.dev/denial"]["reason"].as_str();
        let Some(reason) = reason else { bail!("the error has no reason: {}", self.shown()) };
        Ok((reason.to_owned(), content(result)))
    }

    /// Checks that the call was refused with the reason `expected`. Returns reason and text.
    pub fn expect_refusal(&self, expected: &str) -> Result<String> {
        let (reason, text) = self.refusal()?;
        if reason != expected {
            bail!("expected {expected}, got {reason}: {text}");
        }
        Ok(format!("{reason}: {text}"))
    }

    /// Returns exit code, result and error on one line.
    pub fn shown(&self) -> String {
        format!("exit {}: {}", self.exit, json!({"result": self.result, "error": self.error}))
    }
}

fn content(result: &Value) -> String {
    result["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// Lists the tools of a server with the Inspector.
pub fn list_tools(demo: &Demo, target: &Target, era: Era) -> Result<Response> {
    inspect(demo, target, era, &["--method", "tools/list"])
}

/// Calls a tool with the Inspector.
pub fn call(demo: &Demo, target: &Target, era: Era, tool: &str, arguments: &Value) -> Result<Response> {
    let arguments = arguments.to_string();
    inspect(demo, target, era, &["--method", "tools/call", "--tool-name", tool, "--tool-args-json", &arguments])
}

fn inspect(demo: &Demo, target: &Target, era: Era, method: &[&str]) -> Result<Response> {
    let url = target.url();
    let authorization = target.token.as_ref().map(|token| format!("Authorization: Bearer {token}"));
    let mut arguments = vec!["exec", "-n", target.from, "agent", "--", "mcp-inspector", "--cli", "--transport", "http"];
    arguments.extend(["--server-url", &url, "--stored-auth-only", "--format", "json", "--quiet"]);
    arguments.extend(["--protocol-era", if era == Era::Legacy { "legacy" } else { "modern" }]);
    if let Some(authorization) = &authorization {
        arguments.extend(["--header", authorization]);
    }
    arguments.extend(method);
    let output = demo.command("kubectl", &arguments)?.stdin(Stdio::null()).output().context("failed to run kubectl")?;
    let printed = |bytes: &[u8], key: &str| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.filter_map(|mut object| object.get_mut(key).map(Value::take)).next_back()
    };
    let response = Response {
        exit: output.status.code().unwrap_or(-1),
        result: printed(&output.stdout, "result"),
        error: printed(&output.stderr, "error"),
    };
    if response.result.is_none() && response.error.is_none() {
        bail!("the Inspector printed neither a result nor an error: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(response)
}

/// The demo's own client (`client.mjs`), running in an agent pod.
pub struct Client {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a task of the client. `target` provides URL and token for tasks that need them.
    pub fn start(demo: &Demo, from: &str, target: Option<&Target>, task: Value) -> Result<Self> {
        let mut task = task;
        if let Some(target) = target {
            task["url"] = json!(target.url());
            task["token"] = json!(target.token);
        }
        let task = task.to_string();
        let arguments = ["exec", "-i", "-n", from, "agent", "--", "node", "--input-type=module", "-", &task];
        let mut command = demo.command("kubectl", &arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
        stdin.write_all(CLIENT.as_bytes()).context("failed to send the client to the agent pod")?;
        drop(stdin);
        let stdout = child.stdout.take().context("kubectl has no standard output")?;
        Ok(Self { child, lines: BufReader::new(stdout) })
    }

    /// Returns the next message that the client prints.
    pub fn next_message(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line).context("failed to read the output of the client")? == 0 {
            bail!("the client ended without printing a result");
        }
        serde_json::from_str(&line).with_context(|| format!("failed to parse the output of the client: {line:?}"))
    }

    /// Runs a task that prints one message, and returns the message.
    pub fn run(demo: &Demo, from: &str, target: Option<&Target>, task: Value) -> Result<Value> {
        Self::start(demo, from, target, task)?.next_message()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The client may have ended by itself; then there is nothing to stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one JSON-RPC request with the demo's own client. Returns an object with the HTTP `status` and the `reply`.
pub fn request(demo: &Demo, target: &Target, method: &str, params: &Value) -> Result<Value> {
    let task = json!({"task": "request", "method": method, "params": params});
    Client::run(demo, target.from, Some(target), task)
}

/// Returns whether a TCP connection to `host` and `port` can be opened from the agent pod in namespace `from`.
pub fn connects(demo: &Demo, from: &str, host: &str, port: u16) -> Result<bool> {
    let task = json!({"task": "connect", "host": host, "port": port, "durationMs": 2000});
    let outcome = Client::run(demo, from, None, task)?;
    outcome["connected"].as_bool().context("the client did not report whether it connected")
}
