//! A server as people run it today: a process of this machine, without a sandbox.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mcp_fleet_crds::server::HttpTransport;
use serde_json::Value;
use tempfile::TempDir;

use crate::case::Case;
use crate::client::{Channel, Client};
use crate::fleet::is_served;
use crate::http::Http;
use crate::sse::Sse;

/// How long a server may take to listen. Nothing waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running server. Dropping it kills it.
pub(crate) struct Direct {
    child: Child,
    /// Its home, and what is its workspace in a fleet.
    folder: TempDir,
    /// The path of the workspace in a fleet.
    workspace: Option<String>,
}

impl Direct {
    /// Starts a server with the arguments and variables that it has in a fleet. What a fleet calls its workspace is a folder of its own.
    pub(crate) fn start(case: &Case) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let workspace = folder.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        case.set_up(&workspace);
        let inside = case.workspace();
        let here = |text: &str| in_folder(text, inside.as_deref(), &workspace);
        let words: Vec<String> =
            case.installed().command.into_iter().chain(case.arguments().iter().map(|text| here(text))).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", folder.path());
        command.envs(case.variables().iter().map(|(name, value)| (name, here(value)))).current_dir(&folder);
        let port = case.port();
        assert!(!port.is_some_and(is_served), "another program listens on port {port:?}, which this server has");
        command
            .stdin(Stdio::piped())
            .stdout(if port.is_some() { Stdio::null() } else { Stdio::piped() })
            .stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), folder, workspace: inside }
    }

    /// Connects to the server, once it listens.
    pub(crate) fn connect(&mut self, case: &Case) -> Client {
        let channel: Box<dyn Channel> = if let Some(http) = case.server().spec.source.http() {
            let started = Instant::now();
            while !is_served(http.port) {
                assert!(started.elapsed() < PATIENCE, "the server does not listen on port {}", http.port);
                std::thread::sleep(Duration::from_millis(50));
            }
            let origin = format!("http://127.0.0.1:{}", http.port);
            match http.transport {
                HttpTransport::StreamableHTTP => {
                    Box::new(Http::new(format!("{origin}{}", http.path), None, case.session.modern))
                }
                HttpTransport::SSE => Box::new(Sse::open(&origin, &http.path)),
            }
        } else {
            Box::new(Pipes {
                input: self.child.stdin.take().unwrap(),
                output: BufReader::new(self.child.stdout.take().unwrap()),
                folder: self.folder.path().join("workspace"),
                workspace: self.workspace.clone(),
            })
        };
        Client::connect(channel, case.session.modern)
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Standard input and output of a server. Paths in its workspace are translated, so that they are the same as in a fleet.
struct Pipes {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
    workspace: Option<String>,
}

/// Returns a text with the path of the workspace on this machine.
fn in_folder(text: &str, workspace: Option<&str>, folder: &Path) -> String {
    workspace.map_or_else(|| text.to_owned(), |workspace| text.replace(workspace, folder.to_str().unwrap()))
}

impl Channel for Pipes {
    fn exchange(&mut self, request: &Value) -> Vec<Value> {
        self.notify(request);
        let mut messages = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the server ended instead of answering {request}");
            if let Some(workspace) = &self.workspace {
                line = line.replace(self.folder.to_str().unwrap(), workspace);
            }
            // Some write other lines as well.
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            let is_response = message["id"] == request["id"] && message["method"].is_null();
            messages.push(message);
            if is_response {
                return messages;
            }
        }
    }

    fn notify(&mut self, notification: &Value) {
        let line = in_folder(&notification.to_string(), self.workspace.as_deref(), &self.folder);
        writeln!(self.input, "{line}").unwrap();
    }
}
