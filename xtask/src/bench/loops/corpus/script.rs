//! What the scripts are written with.

use std::ops::Range;

use serde_json::{Value, json};

use super::super::trace::{Call, Head, Label, Trace};

/// Time that a model thinks before its next call, in milliseconds.
pub const THINKS: Range<u64> = 1500..7000;

/// A trace that is being written.
pub struct Script {
    name: String,
    at_ms: u64,
    calls: Vec<Call>,
    pub random: fastrand::Rng,
}

/// The answer of a tool.
pub struct Answer {
    result: Value,
    is_error: bool,
}

/// A result.
pub fn ok(result: impl Into<Value>) -> Answer {
    Answer { result: result.into(), is_error: false }
}

/// A failure of the tool.
pub fn failed(result: impl Into<Value>) -> Answer {
    Answer { result: result.into(), is_error: true }
}

impl Script {
    /// Starts a trace. The seed comes from the name.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |seed: u64, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self { name, at_ms: 0, calls: Vec::new(), random: fastrand::Rng::with_seed(seed) }
    }

    /// Adds a call after a pause; `tool` is `<server>/<tool>`.
    pub fn call(&mut self, pause: Range<u64>, tool: &str, args: Value, answer: Answer) {
        let (server, tool) = tool.split_once('/').unwrap_or(("server", tool));
        self.at_ms += self.random.u64(pause);
        self.calls.push(Call {
            at_ms: self.at_ms,
            tool: tool.to_owned(),
            args,
            result: answer.result,
            is_error: answer.is_error,
            server: Some(server.to_owned()),
            principal: None,
            class: None,
        });
    }

    /// Adds a call after the model has thought.
    pub fn then(&mut self, tool: &str, args: Value, answer: Answer) {
        self.call(THINKS, tool, args, answer);
    }

    /// Lets the agent look around, as agents do before they start: every result is new.
    pub fn look_around(&mut self, files: u32) {
        let listing = "[DIR] src\n[DIR] tests\n[FILE] Cargo.toml\n[FILE] README.md";
        self.then("filesystem/list_directory", json!({"path": "/workspace"}), ok(listing));
        for file in 0..files {
            let name =
                ["parser", "lexer", "writer", "cache", "server", "client", "config", "router"][file as usize % 8];
            let path = format!("/workspace/src/{name}_{file}.rs");
            let lines = self.random.u32(20..400);
            let text = format!("//! The {name}.\n\npub struct {name}{file};\n\n// {lines} lines\n");
            self.then("filesystem/read_text_file", json!({"path": path}), ok(text));
        }
    }

    /// Returns a time, as results contain them, that grows with the trace.
    pub fn clock(&self) -> String {
        let seconds = self.at_ms / 1000;
        format!("2026-11-20T{:02}:{:02}:{:02}Z", 8 + seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    /// Returns a duration as test runners print it.
    pub fn took(&mut self) -> String {
        format!("{}.{:02}s", self.random.u32(0..20), self.random.u32(0..100))
    }

    /// Ends a trace of a loop that began with the call at this index.
    pub fn ends_as_loop(self, from: usize) -> Trace {
        let head = Head { name: self.name, label: Label::Loop, loop_from: Some(from) };
        Trace { head, calls: self.calls }
    }

    /// Ends a trace of work.
    pub fn ends_as_work(self) -> Trace {
        Trace { head: Head { name: self.name, label: Label::Work, loop_from: None }, calls: self.calls }
    }

    /// Returns the index of the next call.
    pub fn next(&self) -> usize {
        self.calls.len()
    }

    /// Lets the following calls be of another agent.
    pub fn by(&mut self, principal: &str, from: usize) {
        self.calls.iter_mut().skip(from).for_each(|call| call.principal = Some(principal.to_owned()));
    }
}
