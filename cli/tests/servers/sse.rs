//! A connection over HTTP with SSE (MCP 2024-11-05), with curl.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::client::Channel;
use crate::http::PATIENCE;

/// An open event stream. Dropping it closes it.
pub(crate) struct Sse {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// Where messages go.
    messages: String,
}

impl Sse {
    /// Opens the event stream of a server with this origin.
    pub(crate) fn open(origin: &str, path: &str) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-N", "--max-time", PATIENCE]).arg(format!("{origin}{path}")).stdout(Stdio::piped());
        let mut child = curl.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stream = Self { child, lines, messages: String::new() };
        stream.messages = format!("{origin}{}", stream.next());
        stream
    }

    /// Returns the data of the next event.
    fn next(&mut self) -> String {
        let line = self.lines.find_map(|line| line.unwrap().strip_prefix("data:").map(|data| data.trim().to_owned()));
        line.unwrap_or_else(|| panic!("the event stream of {} has ended", self.messages))
    }
}

impl Channel for Sse {
    fn exchange(&mut self, request: &Value) -> Vec<Value> {
        self.notify(request);
        let mut messages = Vec::new();
        loop {
            let message: Value = serde_json::from_str(&self.next()).unwrap();
            let is_response = message["id"] == request["id"] && message["method"].is_null();
            messages.push(message);
            if is_response {
                return messages;
            }
        }
    }

    fn notify(&mut self, notification: &Value) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "-H", "Content-Type: application/json", "-d"]).arg(notification.to_string());
        let output = curl.arg(&self.messages).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Sse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
