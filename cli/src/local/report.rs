//! What a person reads at the start: what is missing without a cluster, where everything is, and two calls to paste.

use std::path::Path;

use mcp_fleet_core::local::Objects;
use mcp_fleet_crds::{MCPPrincipal, MCPServer};
use serde_json::{Value, json};

/// What only a cluster gives.
pub(crate) const MISSING: &str = "\
What only a cluster gives, and is missing here:
  - network policies: every program on this machine can reach the gateway. It still needs a token, which only you can read
  - images: a server is a program of this machine. It reads its own folder and the system's, and nothing else
  - namespaces, quotas, limits on CPU and memory, and more than one replica
  - status and Events of objects: they are printed here";

/// Protocol revision of the calls to paste, which need no session.
const REVISION: &str = "2026-07-28";

/// A call of one principal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    server: String,
    tool: String,
    arguments: Value,
}

/// Returns a principal, with a call that it may make and one that is refused. None if no such calls are obvious.
pub(crate) fn example(objects: &Objects) -> Option<(&MCPPrincipal, Call, Call)> {
    objects.principals.iter().find_map(|principal| {
        let held = &principal.spec.scope_refs;
        let scopes = objects
            .scopes
            .iter()
            .filter(|scope| held.iter().any(|reference| Some(&reference.name) == scope.metadata.name.as_ref()));
        scopes.into_iter().find_map(|scope| {
            let server = objects
                .servers
                .iter()
                .find(|server| Some(&scope.spec.server_ref.name) == server.metadata.name.as_ref())?;
            let named = |tool: &str| scope.spec.tools.iter().find(|named| named.name == tool);
            let is_granted = |tool: &str, class| named(tool).is_some() || scope.spec.classes.contains(&class);
            let calls = |granted: bool| {
                let tools = server.spec.tools.iter().filter(move |tool| is_granted(&tool.name, tool.class) == granted);
                let mut calls: Vec<Call> = tools
                    .filter_map(|tool| {
                        let narrowed = named(&tool.name).and_then(|named| named.arguments.as_ref());
                        call(server, tool.wire_name(), &json!(narrowed.unwrap_or(&tool.arguments)))
                    })
                    .collect();
                calls.sort_by_key(|call| call.arguments.as_object().map_or(0, serde_json::Map::len));
                calls
            };
            let granted = calls(true);
            let allowed = granted.first()?.clone();
            // Best one that says what to do about it: with a path that the grant does not admit.
            let outside = granted.iter().find_map(Call::outside);
            let refused = outside.or_else(|| calls(false).into_iter().next());
            let refused = refused.unwrap_or_else(|| Call { tool: "undeclared_tool".into(), ..allowed.clone() });
            Some((&**principal, allowed, refused))
        })
    })
}

impl Call {
    /// Returns the call with a path that no grant admits; none if it has no path.
    fn outside(&self) -> Option<Self> {
        let mut outside = self.clone();
        let is_path = |value: &Value| value.as_str().is_some_and(|text| text.starts_with('/'));
        let path = outside.arguments.as_object_mut()?.values_mut().find(|value| is_path(value))?;
        *path = "/etc/passwd".into();
        Some(outside)
    }
}

fn call(server: &MCPServer, tool: &str, arguments: &Value) -> Option<Call> {
    let required = arguments.as_array()?.iter().filter(|argument| argument["required"] == true);
    let arguments: Option<serde_json::Map<_, _>> =
        required.map(|argument| Some((argument["name"].as_str()?.to_owned(), sample(argument)?))).collect();
    Some(Call { server: server.metadata.name.clone()?, tool: tool.to_owned(), arguments: arguments?.into() })
}

/// Returns a value that an argument accepts, for the types where one is obvious.
fn sample(argument: &Value) -> Option<Value> {
    match argument["type"].as_str()? {
        "Path" => {
            let folder = argument["path"]["within"][0].as_str()?;
            Some(match argument["path"]["extensions"][0].as_str() {
                Some(extension) => format!("{folder}/example.{extension}").into(),
                None => folder.into(),
            })
        }
        "Enum" => Some(argument["enum"]["values"][0].clone()),
        "String" if argument["string"]["pattern"].is_null() => Some("example".into()),
        "Integer" => Some(argument["integer"]["minimum"].as_i64().unwrap_or_default().into()),
        "Boolean" => Some(false.into()),
        _ => None,
    }
}

/// Returns the command line of a call, ready to paste into a shell.
pub(crate) fn curl(url: &str, credential: &Path, call: &Call) -> String {
    let Call { server, tool, arguments } = call;
    let meta =
        json!({"io.modelcontextprotocol/protocolVersion": REVISION, "io.modelcontextprotocol/clientCapabilities": {}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta}});
    let quoted = |text: &str| shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned);
    let file = |name: &str| quoted(&credential.join(name).to_string_lossy());
    [
        format!("curl -sS --cacert {} {url}/{server}/mcp", file("ca.crt")),
        format!("  -H \"Authorization: Bearer $(cat {})\"", file("token")),
        "  -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream'".to_owned(),
        format!(
            "  -H 'MCP-Protocol-Version: {REVISION}' -H 'Mcp-Method: tools/call' -H {}",
            quoted(&format!("Mcp-Name: {tool}"))
        ),
        format!("  -d {}", quoted(&body.to_string())),
    ]
    .join(" \\\n")
}
