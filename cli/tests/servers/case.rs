//! What `tests/servers/NAME` says about a server: the objects that run it, and the calls of its session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mcp_fleet_crds::MCPServer;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

/// The folder with all servers.
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers");

/// A session, as `session.yaml` has it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    /// Commands that make files in the workspace, before the server starts there.
    #[serde(default)]
    pub(crate) setup: Vec<Vec<String>>,
    /// Whether the server speaks MCP 2026-07-28 only.
    #[serde(default)]
    pub(crate) modern: bool,
    pub(crate) calls: Vec<Call>,
}

/// A call of a tool.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) tool: String,
    #[serde(default = "no_arguments")]
    pub(crate) arguments: Value,
    /// Whether the caller asks for progress.
    #[serde(default)]
    pub(crate) progress: bool,
    /// Whether the server refuses it.
    #[serde(default)]
    pub(crate) refused: bool,
    /// What is another text each time, wherever it is in the result.
    #[serde(default)]
    varies: Vec<Varying>,
}

impl Call {
    /// Replaces what is another text each time.
    pub(crate) fn without_varying(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let replaced =
                    |text: String, Varying { pattern, .. }: &Varying| pattern.replace_all(&text, "…").into_owned();
                Value::String(self.varies.iter().fold(text.clone(), replaced))
            }
            Value::Array(items) => items.iter().map(|item| self.without_varying(item)).collect(),
            Value::Object(members) => {
                members.iter().map(|(name, member)| (name.clone(), self.without_varying(member))).collect()
            }
            other => other.clone(),
        }
    }
}

fn no_arguments() -> Value {
    json!({})
}

/// Text that is another one each time.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Varying {
    #[serde(with = "serde_regex_text")]
    pattern: Regex,
    /// For the reader.
    #[serde(rename = "why")]
    _why: String,
}

mod serde_regex_text {
    use regex::Regex;
    use serde::{Deserialize as _, Deserializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
        Regex::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A server with its session.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) session: Session,
    /// All objects of `server.yaml`.
    pub(crate) objects: Vec<Value>,
}

impl Case {
    pub(crate) fn read(name: &str) -> Self {
        let folder = Path::new(FOLDER).join(name);
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        let documents = serde_yaml_ng::Deserializer::from_str(&read("server.yaml"))
            .map(|document| Value::deserialize(document).unwrap())
            .collect();
        let session = serde_yaml_ng::from_str(&read("session.yaml")).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), session, objects: documents }
    }

    /// Returns the server without each of the settings that it could do without, with the name of what is missing.
    pub(crate) fn without_each_setting(&self) -> Vec<(String, Self)> {
        let server = self.objects.iter().find(|object| object["kind"] == "MCPServer").unwrap();
        let kind = if server["spec"]["source"]["http"].is_object() { "http" } else { "stdio" };
        let lists = ["env", "envFrom", "files", "scratch"].map(|list| format!("/spec/source/{kind}/{list}"));
        let items = lists.iter().flat_map(|list| {
            let length = server.pointer(list).and_then(Value::as_array).map_or(0, Vec::len);
            (0..length).map(move |number| (list.clone(), Some(number)))
        });
        let has_workspace = server["spec"]["workspace"].is_object();
        let workspace = has_workspace.then(|| ("/spec/workspace".to_owned(), None));
        items.chain(workspace).map(|(path, item)| self.without(&path, item)).collect()
    }

    /// Returns the server without a member, or without an item of a list.
    fn without(&self, path: &str, item: Option<usize>) -> (String, Self) {
        let mut case = Self { name: self.name.clone(), session: self.session.clone(), objects: self.objects.clone() };
        let server = case.objects.iter_mut().find(|object| object["kind"] == "MCPServer").unwrap();
        let removed = if let Some(number) = item {
            server.pointer_mut(path).unwrap().as_array_mut().unwrap().remove(number)
        } else {
            let (parent, member) = path.rsplit_once('/').unwrap();
            server.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(member).unwrap()
        };
        (format!("{path} {removed}"), case)
    }

    pub(crate) fn server(&self) -> MCPServer {
        let object = self.objects.iter().find(|object| object["kind"] == "MCPServer").unwrap();
        serde_json::from_value(object.clone()).unwrap()
    }

    /// Returns the program as it is installed on this machine, and what it needs to read, from the variables that
    /// `cargo xtask test servers` sets.
    pub(crate) fn installed(&self) -> Installed {
        let name = self.name.to_uppercase().replace('-', "_");
        let lines = |variable: String| -> Vec<String> {
            let value = std::env::var(&variable);
            let value = value.unwrap_or_else(|_| panic!("{variable} is not set: run `cargo xtask test servers`"));
            value.lines().map(str::to_owned).collect()
        };
        Installed {
            command: lines(format!("MCP_SERVER_{name}")),
            folders: lines(format!("MCP_FOLDERS_{name}")).into_iter().map(PathBuf::from).collect(),
        }
    }

    /// Returns the arguments of the program.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let server = self.server();
        let container = server.spec.source.container().unwrap();
        assert_eq!(container.command.len(), 1, "the command is the installed program; other words belong in args");
        container.args.clone()
    }

    /// Returns the variables that the objects give the program. Secrets are in the same file.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let server = self.server();
        let secret = |name: &str, key: &str| {
            let secret =
                self.objects.iter().find(|object| object["kind"] == "Secret" && object["metadata"]["name"] == name);
            secret.unwrap()["stringData"][key].as_str().unwrap().to_owned()
        };
        let variables = server.spec.source.container().unwrap().env.iter().map(|variable| {
            let key = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
            let value = key.map_or_else(|| variable.value.clone().unwrap(), |key| secret(&key.name, &key.key));
            (variable.name.clone(), value)
        });
        variables.collect()
    }

    /// Returns the port on which the server listens, if it serves HTTP.
    pub(crate) fn port(&self) -> Option<u16> {
        self.server().spec.source.http().map(|http| http.port)
    }

    /// Returns where the server sees its workspace.
    pub(crate) fn workspace(&self) -> Option<String> {
        self.server().spec.workspace.map(|workspace| workspace.mount_path)
    }

    /// Makes the files that the server finds in its workspace.
    pub(crate) fn set_up(&self, folder: &Path) {
        for words in &self.session.setup {
            let mut command = std::process::Command::new(&words[0]);
            // Without what the user of this machine has configured.
            let output = command.args(&words[1..]).current_dir(folder).env("HOME", folder).output().unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
        }
    }
}

/// A program as it is installed on this machine.
pub(crate) struct Installed {
    /// Program and first arguments.
    pub(crate) command: Vec<String>,
    /// What it reads, besides the folders of the system.
    pub(crate) folders: Vec<PathBuf>,
}
