//! `mcp-fleet example-server`: a small MCP server over stdio that keeps notes in a folder, for the example of
//! `mcp-fleet try`. It checks nothing by itself: what it may do is for the gateway and the sandbox to say.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

/// Keeps notes in a folder, as an MCP server over stdio.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder.
    folder: PathBuf,
}

/// Answers requests until standard input ends.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // A grant is for what is below a folder, which has to exist.
    fs::create_dir_all(arguments.folder.join("notes/drafts"))?;
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let Ok(request) = serde_json::from_str::<Value>(&line?) else { continue };
        // A notification needs no answer.
        let Some(id) = request.get("id") else { continue };
        let answer = match answer(&arguments.folder, &request) {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(message) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": message}}),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(folder: &Path, request: &Value) -> Result<Value, String> {
    let params = &request["params"];
    match request["method"].as_str().unwrap_or_default() {
        "initialize" => Ok(json!({
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "notes", "version": env!("CARGO_PKG_VERSION")},
            "instructions": "Notes are Markdown files below /workspace/notes.",
        })),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(tools()),
        "tools/call" => {
            let called = call(folder, params["name"].as_str().unwrap_or_default(), &params["arguments"]);
            let (text, is_error) = match called {
                Ok(text) => (text, false),
                Err(error) => (error, true),
            };
            Ok(json!({"content": [{"type": "text", "text": text}], "isError": is_error}))
        }
        method => Err(format!("there is no method {method}")),
    }
}

fn tools() -> Value {
    let tool = |name: &str, description: &str, arguments: &[&str]| {
        let properties: serde_json::Map<_, _> =
            arguments.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        json!({"name": name, "description": description, "inputSchema":
            {"type": "object", "properties": properties, "required": arguments}})
    };
    json!({"tools": [
        tool("list_notes", "Lists all notes.", &[]),
        tool("read_note", "Returns a note.", &["path"]),
        tool("write_note", "Writes a note.", &["path", "content"]),
        tool("delete_note", "Deletes a note.", &["path"]),
    ]})
}

fn call(folder: &Path, tool: &str, arguments: &Value) -> Result<String, String> {
    let path = Path::new(arguments["path"].as_str().unwrap_or_default());
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    match tool {
        "list_notes" => list(&folder.join("notes")).map_err(|error| error.to_string()),
        "read_note" => fs::read_to_string(path).map_err(failed),
        "write_note" => {
            fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
            fs::write(path, arguments["content"].as_str().unwrap_or_default()).map_err(failed)?;
            Ok(format!("wrote {}", path.display()))
        }
        "delete_note" => {
            fs::remove_file(path).map_err(failed)?;
            Ok(format!("deleted {}", path.display()))
        }
        _ => Err(format!("there is no tool {tool}")),
    }
}

/// Lists the notes at and below a folder.
fn list(folder: &Path) -> std::io::Result<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    let lines: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
    Ok(if lines.is_empty() { "there are no notes yet".to_owned() } else { lines.join("\n") })
}
