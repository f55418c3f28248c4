//! Every kind of call that is refused, and the reason that comes back.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::acme;
use crate::demo::agent::{self, Era, call};
use crate::demo::report::Step;
use crate::demo::stage::Stage;

/// A tool that the server has and the catalogue does not declare.
pub const UNDECLARED_TOOL: Step = Step {
    name: "undeclared tool",
    does: "acme's reader calls get_file_info, which the server has but the catalogue does not declare",
    run: |stage| unknown_tool(stage, "get_file_info", &json!({"path": "/workspace/reports/q3.md"}), "tool_unknown"),
};

/// A tool that the catalogue declares and no held scope grants.
pub const WRITE_WITHOUT_SCOPE: Step = Step {
    name: "write without scope",
    does: "acme's reader, who holds no write scope, calls write_file",
    run: |stage| {
        let draft = json!({"path": "/workspace/drafts/x.md", "content": "x"});
        unknown_tool(stage, "write_file", &draft, "tool_not_granted")
    },
};

/// Out of the root by dots.
pub const PATH_UP: Step = Step {
    name: "path with ..",
    does: "acme's reader reads /workspace/reports/../../etc/passwd",
    run: |stage| refused(stage, "files", "read_text_file", PASSWD_BY_DOTS, "path_outside_roots"),
};

/// Out of the root by name.
pub const PATH_ABSOLUTE: Step = Step {
    name: "absolute path",
    does: "acme's reader reads /etc/passwd",
    run: |stage| refused(stage, "files", "read_text_file", r#"{"path": "/etc/passwd"}"#, "path_outside_roots"),
};

/// Out of the root by a link.
pub const PATH_SYMLINK: Step = Step {
    name: "symlink",
    does: "acme's reader reads /workspace/reports/leak.md, a symlink to /etc/passwd",
    run: |stage| {
        let path = r#"{"path": "/workspace/reports/leak.md"}"#;
        refused(stage, "files", "read_text_file", path, "path_outside_roots")
    },
};

/// Known to the server, not declared.
pub const UNDECLARED_ARGUMENT: Step = Step {
    name: "undeclared argument",
    does: "acme's reader reads the report with `tail`, which the server takes but the catalogue does not declare",
    run: |stage| {
        let arguments = r#"{"path": "/workspace/reports/q3.md", "tail": 1}"#;
        refused(stage, "files", "read_text_file", arguments, "argument_undeclared")
    },
};

/// Not one of the declared values.
pub const OUTSIDE_ENUM: Step = Step {
    name: "value outside enum",
    does: "acme's reader asks for the time in America/Lima, a real time zone that is not declared",
    run: |stage| {
        let arguments = r#"{"timezone": "America/Lima"}"#;
        refused(stage, "clock", "get_current_time", arguments, "argument_not_allowed")
    },
};

/// Within the catalogue's range, not within the scope's.
pub const OUTSIDE_RANGE: Step = Step {
    name: "value outside range",
    does: "acme's reader asks for 500 lines: the catalogue says at most 1000, the scope at most 100",
    run: |stage| {
        let arguments = r#"{"path": "/workspace/reports/q3.md", "head": 500}"#;
        refused(stage, "files", "read_text_file", arguments, "argument_out_of_range")
    },
};

/// Refused before anything is created.
pub const CONTRADICTION: Step = Step {
    name: "contradiction",
    does: "applies a server with a workspace and two replicas",
    run: |stage| {
        let patch = json!({"spec": {"replicas": 2}}).to_string();
        match stage.kubectl(&["patch", "mcpserver", "files", "-n", "acme", "--type=merge", "-p", &patch]) {
            Ok(said) => bail!("it was taken: {said}"),
            Err(error) => {
                let said = format!("{error:#}");
                let line = said.lines().find(|line| line.contains("lower replicas or remove workspace"));
                line.map(str::to_owned).ok_or(error)
            }
        }
    },
};

/// Out of the root by dots.
const PASSWD_BY_DOTS: &str = r#"{"path": "/workspace/reports/../../etc/passwd"}"#;

/// A call by the reader that is refused for a reason that the caller sees.
fn refused(stage: &Stage, server: &'static str, tool: &str, arguments: &str, reason: &str) -> Result<String> {
    let target = acme(stage, "reader", server)?;
    call(stage, &target, Era::Legacy, tool, &serde_json::from_str(arguments)?)?.refused_for(reason)
}

/// A call of a tool that does not exist for the reader: the caller sees `Unknown tool`, the audit line the reason.
///
/// The Inspector does not call what it was not shown, so it says so itself, and our own client makes the call.
fn unknown_tool(stage: &Stage, tool: &str, arguments: &Value, reason: &str) -> Result<String> {
    let target = acme(stage, "reader", "files")?;
    let inspector = call(stage, &target, Era::Legacy, tool, arguments)?;
    let told = inspector.error.as_ref().and_then(|error| error["message"].as_str()).unwrap_or_default().to_owned();
    if inspector.exit == 0 || !told.contains("not found") {
        bail!("the Inspector should not find {tool}: {}", inspector.shown());
    }
    let answer = agent::request(stage, &target, "tools/call", &json!({"name": tool, "arguments": arguments}))?;
    let error = &answer["reply"]["error"];
    if error["code"] != json!(-32602) || error["message"] != json!(format!("Unknown tool: {tool}")) {
        bail!("expected -32602 Unknown tool: {answer}");
    }
    let line = stage.audit("acme-mcp", |line| line["tool"] == json!(tool) && line["decision"] == json!("denied"))?;
    if line["reason"] != json!(reason) {
        bail!("the audit line should say {reason}: {line}");
    }
    Ok(format!("the Inspector: {told}\nthe call: {} {}\nthe audit line: {reason}", error["code"], error["message"]))
}
