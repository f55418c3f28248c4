//! A trace: what one or more agents called, and what they got.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The calls of one or more agents, in the order of their times.
#[derive(Clone, Debug)]
pub struct Trace {
    pub head: Head,
    pub calls: Vec<Call>,
}

/// The first line of a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Head {
    pub name: String,
    pub label: Label,
    /// Index of the call with which the loop begins, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loop_from: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    Loop,
    Work,
}

/// One call: every later line of a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Milliseconds since the beginning of the trace.
    pub at_ms: u64,
    pub tool: String,
    #[serde(default)]
    pub args: Value,
    /// The text of the result, or the result as JSON.
    #[serde(default)]
    pub result: Value,
    #[serde(default)]
    pub is_error: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Class of the tool in the catalogue. Absent: the replay takes it from the words in the tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

impl Trace {
    /// Reads a trace.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("failed to read the trace {}", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (_, first) = lines.next().context("the file is empty")?;
        let head: Head = serde_json::from_str(first).context("line 1 must be {name, label, loop_from}")?;
        let mut calls: Vec<Call> = Vec::new();
        for (index, line) in lines {
            let call: Call = serde_json::from_str(line)
                .with_context(|| format!("line {} must be {{at_ms, tool, args, result, is_error}}", index + 1))?;
            if calls.last().is_some_and(|last| last.at_ms > call.at_ms) {
                bail!("line {} is earlier than the line before; sort the calls by at_ms", index + 1);
            }
            calls.push(call);
        }
        match (head.label, head.loop_from) {
            (Label::Loop, None) => bail!("line 1 has the label loop and no loop_from"),
            (Label::Loop, Some(from)) if from >= calls.len() => bail!("loop_from is {from}, after the last call"),
            _ => Ok(Self { head, calls }),
        }
    }

    /// Returns the file's text.
    pub fn text(&self) -> Result<String> {
        let mut text = serde_json::to_string(&self.head)? + "\n";
        for call in &self.calls {
            text += &serde_json::to_string(call)?;
            text.push('\n');
        }
        Ok(text)
    }

    /// Returns the number of calls that do not belong to a loop.
    pub fn honest(&self) -> usize {
        match self.head.label {
            Label::Work => self.calls.len(),
            Label::Loop => self.head.loop_from.unwrap_or(0).min(self.calls.len()),
        }
    }
}
