//! A server behind a gateway, in the sandbox of its shim: `mcp-fleet try` with the objects of its folder.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::case::{Case, FOLDER};
use crate::client::Client;
use crate::http::Http;

/// A running fleet. Dropping it kills it.
pub(crate) struct Fleet {
    child: Child,
    folder: TempDir,
    name: String,
    /// Where the server serves HTTP.
    port: Option<u16>,
}

impl Fleet {
    /// Starts a fleet, and waits until it is ready. Whether the server is ready as well is not certain. Fails if the objects are refused.
    pub(crate) fn start(case: &Case) -> Result<Self, String> {
        // Not in /tmp, of which a server has one of its own.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).unwrap();
        std::fs::copy(Path::new(FOLDER).join("fleet.yaml"), files.join("fleet.yaml")).unwrap();
        for (number, object) in case.objects.iter().enumerate() {
            std::fs::write(files.join(format!("server-{number}.json")), object.to_string()).unwrap();
        }
        let state = folder.path().join("state");
        let name = &case.name;
        if case.workspace().is_some() {
            let workspace = state.join("workspaces/acme").join(name);
            std::fs::create_dir_all(&workspace).unwrap();
            case.set_up(&workspace);
        }
        let installed = case.installed();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"));
        command.arg("try").arg("-f").arg(&files).arg("--state").arg(&state);
        let words = shlex::try_join(installed.command.iter().map(String::as_str)).unwrap();
        command.arg("--server-command").arg(format!("{name}={words}"));
        for readable in &installed.folders {
            command.arg("--server-folder").arg(format!("{name}={}", readable.display()));
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut errors = child.stderr.take().unwrap();
        let (sender, ready) = mpsc::channel();
        let mut fleet = Self { child, folder, name: name.clone(), port: case.port() };
        // Reads on, so that the fleet can print whatever it does.
        std::thread::spawn(move || {
            let mut printed = Vec::new();
            for line in lines.map_while(Result::ok) {
                if line.starts_with("ready.") {
                    let _ = sender.send(printed.clone());
                }
                printed.push(line);
            }
        });
        if let Ok(printed) = ready.recv() {
            let problem = printed.into_iter().find(|line| line.starts_with("not in force"));
            return problem.map_or(Ok(fleet), Err);
        }
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        fleet.child.wait().unwrap();
        Err(text)
    }

    /// Connects to the server as the principal.
    pub(crate) fn connect(&self, modern: bool) -> Client {
        let credential = self.state().join("credentials/acme/agent");
        let read = |entry: &str| std::fs::read_to_string(credential.join(entry)).unwrap();
        let url = format!("{}/{}/mcp", read("url"), self.name);
        Client::connect(Box::new(Http::new(url, Some((credential.join("ca.crt"), read("token"))), modern)), modern)
    }

    /// Returns the log of the server and its shim.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.state().join(format!("logs/server-acme-{}.log", self.name))).unwrap_or_default()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The server ends a moment later, and the next one may have the same port.
        while self.port.is_some_and(is_served) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Returns whether a program listens on a port of this machine.
pub(crate) fn is_served(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
