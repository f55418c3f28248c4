//! A tenant's agent: the MCP Inspector, and our own client for what the Inspector would not do, both in the agent's pod.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::stage::Stage;

/// Our own client.
const CLIENT: &str = include_str!("client.mjs");

/// Which revision of MCP the Inspector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// With initialize and a session.
    Legacy,
    /// Stateless.
    Modern,
}

/// Where a call goes, and with whose token.
#[derive(Clone, Debug)]
pub struct Target {
    /// The namespace of the agent's pod.
    pub from: &'static str,
    /// The runtime namespace of the gateway.
    pub runtime: &'static str,
    /// The server.
    pub server: &'static str,
    /// The token; absent: none is sent.
    pub token: Option<String>,
}

impl Target {
    fn url(&self) -> String {
        format!("https://gateway.{}.svc/{}/mcp", self.runtime, self.server)
    }
}

/// What the Inspector printed.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code.
    pub exit: i32,
    /// The result of the MCP method.
    pub result: Option<Value>,
    /// Its own error: `code`, `message`, `status`.
    pub error: Option<Value>,
}

impl Answer {
    /// The text of a result that is not an error.
    pub fn text(&self) -> Result<String> {
        match &self.result {
            Some(result) if result["isError"] != json!(true) => Ok(content(result)),
            _ => bail!("expected a result, got {}", self.shown()),
        }
    }

    /// Reason and text of a refusal that an agent can act on.
    pub fn refusal(&self) -> Result<(String, String)> {
        let result = self.result.as_ref().filter(|result| result["isError"] == json!(true));
        let Some(result) = result else { bail!("expected a refusal, got {}", self.shown()) };
        let reason = result["_meta"]["mcp-fleet.dev/denial"]["reason"].as_str();
        let Some(reason) = reason else { bail!("an error without a reason: {}", self.shown()) };
        Ok((reason.to_owned(), content(result)))
    }

    /// A refusal for exactly this reason, as evidence.
    pub fn refused_for(&self, expected: &str) -> Result<String> {
        let (reason, text) = self.refusal()?;
        if reason != expected {
            bail!("expected {expected}, got {reason}: {text}");
        }
        Ok(format!("{reason}: {text}"))
    }

    /// All of it on one line.
    pub fn shown(&self) -> String {
        format!("exit {}: {}", self.exit, json!({"result": self.result, "error": self.error}))
    }
}

fn content(result: &Value) -> String {
    result["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// Lists the tools of a server with the Inspector.
pub fn list_tools(stage: &Stage, target: &Target, era: Era) -> Result<Answer> {
    inspect(stage, target, era, &["--method", "tools/list"])
}

/// Calls a tool with the Inspector.
pub fn call(stage: &Stage, target: &Target, era: Era, tool: &str, arguments: &Value) -> Result<Answer> {
    let arguments = arguments.to_string();
    inspect(stage, target, era, &["--method", "tools/call", "--tool-name", tool, "--tool-args-json", &arguments])
}

fn inspect(stage: &Stage, target: &Target, era: Era, method: &[&str]) -> Result<Answer> {
    let url = target.url();
    let authorization = target.token.as_ref().map(|token| format!("Authorization: Bearer {token}"));
    let mut arguments = vec!["exec", "-n", target.from, "agent", "--", "mcp-inspector", "--cli", "--transport", "http"];
    arguments.extend(["--server-url", &url, "--stored-auth-only", "--format", "json", "--quiet"]);
    arguments.extend(["--protocol-era", if era == Era::Legacy { "legacy" } else { "modern" }]);
    if let Some(authorization) = &authorization {
        arguments.extend(["--header", authorization]);
    }
    arguments.extend(method);
    let output =
        stage.command("kubectl", &arguments)?.stdin(Stdio::null()).output().context("failed to run kubectl")?;
    let printed = |bytes: &[u8], key: &str| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let objects = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects.filter_map(|mut object| object.get_mut(key).map(Value::take)).next_back()
    };
    let answer = Answer {
        exit: output.status.code().unwrap_or(-1),
        result: printed(&output.stdout, "result"),
        error: printed(&output.stderr, "error"),
    };
    if answer.result.is_none() && answer.error.is_none() {
        bail!("the Inspector printed nothing of use: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(answer)
}

/// Our own client, at work in an agent's pod.
pub struct Client {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a task; `target` gives URL and token where the task needs them.
    pub fn start(stage: &Stage, from: &str, target: Option<&Target>, task: Value) -> Result<Self> {
        let mut task = task;
        if let Some(target) = target {
            task["url"] = json!(target.url());
            task["token"] = json!(target.token);
        }
        let task = task.to_string();
        let arguments = ["exec", "-i", "-n", from, "agent", "--", "node", "--input-type=module", "-", &task];
        let mut command = stage.command("kubectl", &arguments)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start kubectl")?;
        let mut stdin = child.stdin.take().context("a pipe was asked for")?;
        stdin.write_all(CLIENT.as_bytes()).context("failed to hand over the client")?;
        drop(stdin);
        let stdout = child.stdout.take().context("a pipe was asked for")?;
        Ok(Self { child, lines: BufReader::new(stdout) })
    }

    /// The next line that it prints.
    pub fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line).context("failed to read from the client")? == 0 {
            bail!("the client ended without an answer");
        }
        serde_json::from_str(&line).with_context(|| format!("the client printed {line:?}"))
    }

    /// Starts a task that prints one line, and returns it.
    pub fn ask(stage: &Stage, from: &str, target: Option<&Target>, task: Value) -> Result<Value> {
        Self::start(stage, from, target, task)?.next()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends by itself when its pipe closes; nothing is lost if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One JSON-RPC request by our own client: the HTTP status and the reply.
pub fn request(stage: &Stage, target: &Target, method: &str, params: &Value) -> Result<Value> {
    let task = json!({"do": "request", "method": method, "params": params});
    Client::ask(stage, target.from, Some(target), task)
}

/// Whether a TCP connection opens.
pub fn connects(stage: &Stage, from: &str, host: &str, port: u16) -> Result<bool> {
    let task = json!({"do": "connect", "host": host, "port": port, "forMs": 2000});
    let outcome = Client::ask(stage, from, None, task)?;
    outcome["connected"].as_bool().context("the client says whether it connected")
}
