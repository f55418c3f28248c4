//! A connection over Streamable HTTP, with curl.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client::{Channel, LEGACY, MODERN};

/// Seconds that a request may take. Only one that hangs takes as long.
pub(crate) const PATIENCE: &str = "300";

/// A connection to an MCP endpoint.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) url: String,
    /// Authority of the gateway, and a token for it.
    pub(crate) credential: Option<(PathBuf, String)>,
    pub(crate) modern: bool,
    session: Option<String>,
}

impl Http {
    pub(crate) const fn new(url: String, credential: Option<(PathBuf, String)>, modern: bool) -> Self {
        Self { url, credential, modern, session: None }
    }

    /// Posts a message and returns the messages of the response; fails if there is no response.
    pub(crate) fn post(&mut self, message: &Value) -> Result<Vec<Value>, String> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "--http1.1", "--max-time", PATIENCE, "--data-binary", "@-"]).arg(&self.url);
        let method = message["method"].as_str().unwrap_or_default();
        let mut headers = vec![
            "Content-Type: application/json".to_owned(),
            "Accept: application/json, text/event-stream".to_owned(),
            "Expect:".to_owned(),
        ];
        if let Some((authority, token)) = &self.credential {
            curl.arg("--cacert").arg(authority);
            headers.push(format!("Authorization: Bearer {token}"));
        }
        if self.modern {
            headers.extend([format!("MCP-Protocol-Version: {MODERN}"), format!("Mcp-Method: {method}")]);
            headers.extend(message["params"]["name"].as_str().map(|name| format!("Mcp-Name: {name}")));
        } else if let Some(session) = &self.session {
            headers.extend([format!("MCP-Protocol-Version: {LEGACY}"), format!("Mcp-Session-Id: {session}")]);
        } else if method != "initialize" {
            headers.push(format!("MCP-Protocol-Version: {LEGACY}"));
        }
        for header in headers {
            curl.arg("-H").arg(header);
        }
        let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(message.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        };
        let header = |wanted: &str| {
            let named = head.lines().filter_map(|line| line.split_once(':'));
            let mut found =
                named.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned());
            found.next()
        };
        if let Some(session) = header("mcp-session-id") {
            self.session = Some(session);
        }
        let parsed = |text: &str| serde_json::from_str(text).map_err(|error| format!("{error}: {head}\n{text}"));
        if header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            events(body).iter().map(|data| parsed(data)).collect()
        } else if body.trim().is_empty() {
            Ok(Vec::new())
        } else {
            Ok(vec![parsed(body)?])
        }
    }
}

/// Returns the data of the events of a stream, without those that are empty.
fn events(body: &str) -> Vec<String> {
    let data = |event: &str| -> String {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    body.replace("\r\n", "\n").split("\n\n").map(data).filter(|data| !data.is_empty()).collect()
}

impl Channel for Http {
    fn exchange(&mut self, request: &Value) -> Vec<Value> {
        self.post(request).unwrap_or_else(|error| panic!("{request}: {error}"))
    }

    fn notify(&mut self, notification: &Value) {
        self.post(notification).unwrap_or_else(|error| panic!("{notification}: {error}"));
    }
}
