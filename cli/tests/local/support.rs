//! A running `mcp-fleet try`, with a copy of the example.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take. Nothing waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet. Dropping it kills it.
pub(crate) struct Trial {
    folder: Arc<TempDir>,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Returns a folder with the example in `files`. Its tenant may call as often as a test does: a bucket begins with one
/// call, and what a test waits for it asks for more often than ten times a second.
pub(crate) fn example() -> Arc<TempDir> {
    // Not in /tmp, of which a server has one of its own.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = folder.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/try");
    for entry in std::fs::read_dir(example).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace("callsPerMinute: 600,", "callsPerMinute: 100000,");
            std::fs::write(files.join(path.file_name().unwrap()), text).unwrap();
        }
    }
    Arc::new(folder)
}

/// Returns the command for the files in a folder, with its state in `state`.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"));
    command.arg("try").arg("-f").arg(folder.join("files")).arg("--state").arg(folder.join("state"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command that has to fail soon. Returns what it says.
pub(crate) fn refusal(mut command: Command) -> String {
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Fails if it has ended, as it should.
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

impl Trial {
    /// Starts the example, and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(example(), arguments)
    }

    /// Starts the files in a folder, and waits until they are ready.
    pub(crate) fn start_in(folder: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut command = command(folder.path(), arguments);
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (collected, output) = (Arc::clone(&lines), BufReader::new(child.stdout.take().unwrap()));
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| collected.lock().unwrap().push(line));
        });
        let mut trial = Self { folder, child, lines };
        let started = Instant::now();
        while !trial.output().contains("\nready.") {
            let ended = trial.child.try_wait().unwrap();
            let fails = ended.is_some() || started.elapsed() > PATIENCE;
            assert!(!fails, "{ended:?}: {}\n{}", trial.output(), trial.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        trial
    }

    /// Stops it as Ctrl-C does, and starts it again.
    pub(crate) fn restart(mut self) -> Self {
        self.interrupt();
        assert!(self.child.wait().unwrap().success(), "{}", self.output());
        Self::start_in(Arc::clone(&self.folder), &[])
    }

    pub(crate) fn interrupt(&self) {
        kill_process(self.pid(), Signal::INT).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap()).unwrap()
    }

    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    /// Returns the folder of a fleet that has ended.
    pub(crate) fn into_folder(self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns what was printed so far.
    pub(crate) fn output(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until a line with this text is printed.
    pub(crate) fn wait_for(&self, text: &str) {
        until(&format!("{text:?} is printed"), || self.output().contains(text).then_some(()));
    }

    /// Changes a file, in which `from` has to be.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.path().join("files").join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(before.contains(from), "{before}");
        std::fs::write(&path, before.replacen(from, to, 1)).unwrap();
    }

    /// Returns the answers to the calls that were printed, as they were printed.
    pub(crate) fn printed_calls(&self) -> Vec<Value> {
        let output = self.output();
        let calls = output.split("\n\n").filter(|part| part.starts_with("curl "));
        calls.map(|call| answer(&Command::new("sh").arg("-c").arg(call).output().unwrap())).collect()
    }

    pub(crate) fn credential(&self, principal: &str, entry: &str) -> String {
        std::fs::read_to_string(self.state().join("credentials/acme").join(principal).join(entry)).unwrap()
    }

    /// Calls a tool with the token that a principal has now.
    pub(crate) fn call(&self, principal: &str, tool: &str, arguments: &Value) -> Value {
        self.call_with(&self.credential(principal, "token"), tool, arguments)
    }

    /// Calls a tool with a token.
    pub(crate) fn call_with(&self, token: &str, tool: &str, arguments: &Value) -> Value {
        answer(&self.curl(&self.credential("reader", "url"), token, tool, arguments))
    }

    /// Calls a tool of the gateway with this URL; none if it does not answer.
    pub(crate) fn try_call_at(&self, url: &str, token: &str, tool: &str, arguments: &Value) -> Option<Value> {
        serde_json::from_slice(&self.curl(url, token, tool, arguments).stdout).ok()
    }

    fn curl(&self, url: &str, token: &str, tool: &str, arguments: &Value) -> Output {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments, "_meta": meta}});
        let authority = self.state().join("credentials/acme/reader/ca.crt");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--http1.1", "--cacert"]).arg(authority).arg(format!("{url}/notes/mcp"));
        for header in [
            format!("Authorization: Bearer {token}"),
            "Content-Type: application/json".to_owned(),
            "Accept: application/json, text/event-stream".to_owned(),
            "MCP-Protocol-Version: 2026-07-28".to_owned(),
            "Mcp-Method: tools/call".to_owned(),
            format!("Mcp-Name: {tool}"),
        ] {
            curl.arg("-H").arg(header);
        }
        curl.arg("-d").arg(body.to_string()).output().unwrap()
    }

    /// Returns the logs of all processes.
    fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.state().join("logs")).into_iter().flatten();
        entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok()).collect()
    }

    /// Returns the audit lines so far.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state().join("audit/acme.jsonl")).unwrap();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the sum of the series of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let output = self.output();
        let url = output.lines().find_map(|line| line.trim().strip_prefix("metrics")).unwrap().trim().to_owned();
        let page = Command::new("curl").arg("-sS").arg(url).output().unwrap();
        let page = String::from_utf8(page.stdout).unwrap();
        let series = page.lines().filter(|line| line.starts_with(name));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {errors}"))
}

/// Returns the text of a call that succeeded.
pub(crate) fn text(answer: &Value) -> String {
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// Returns why a call was refused.
pub(crate) fn reason(answer: &Value) -> String {
    let denial = &answer["result"]["_meta"]["mcp-fleet.dev/denial"];
    denial["reason"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Waits until something is there.
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
