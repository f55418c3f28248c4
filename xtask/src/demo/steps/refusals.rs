//! Calls that the policy does not allow, and the reason with which each is refused.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::acme;
use crate::demo::agent::{self, Era, call};
use crate::demo::report::Step;
use crate::demo::state::Demo;

/// Calls a tool that the catalogue does not declare.
pub const UNDECLARED_TOOL: Step = Step {
    name: "undeclared tool",
    action: "acme's reader calls get_file_info. The server offers this tool, but the catalogue does not declare it.",
    purpose: "What is not declared is denied.",
    run: |demo| unknown_tool(demo, "get_file_info", &json!({"path": "/workspace/reports/q3.md"}), "tool_unknown"),
};

/// Calls a declared tool that no scope of the caller grants.
pub const WRITE_WITHOUT_SCOPE: Step = Step {
    name: "write without scope",
    action: "acme's reader, which holds no scope for writing, calls write_file.",
    purpose: "Declaring a tool is not enough: a scope of the caller must grant it.",
    run: |demo| {
        let draft = json!({"path": "/workspace/drafts/x.md", "content": "x"});
        unknown_tool(demo, "write_file", &draft, "tool_not_granted")
    },
};

/// Leaves the allowed folder with `..`.
pub const PATH_UP: Step = Step {
    name: "path with ..",
    action: "acme's reader tries to read /workspace/reports/../../etc/passwd.",
    purpose: "A path cannot leave the allowed folder with `..`.",
    run: |demo| refused(demo, "files", "read_text_file", PASSWD_BY_DOTS, "path_outside_roots"),
};

/// Names a file outside the allowed folder.
pub const PATH_ABSOLUTE: Step = Step {
    name: "absolute path",
    action: "acme's reader tries to read /etc/passwd.",
    purpose: "An absolute path outside the allowed folder is refused.",
    run: |demo| refused(demo, "files", "read_text_file", r#"{"path": "/etc/passwd"}"#, "path_outside_roots"),
};

/// Leaves the allowed folder through a symlink.
pub const PATH_SYMLINK: Step = Step {
    name: "symlink",
    action: "acme's reader tries to read /workspace/reports/leak.md, which is a symlink to /etc/passwd.",
    purpose: "Links are resolved before the call, so a link cannot lead out of the allowed folder.",
    run: |demo| {
        let path = r#"{"path": "/workspace/reports/leak.md"}"#;
        refused(demo, "files", "read_text_file", path, "path_outside_roots")
    },
};

/// Uses an argument that the catalogue does not declare.
pub const UNDECLARED_ARGUMENT: Step = Step {
    name: "undeclared argument",
    action: "acme's reader reads the report with the argument tail. The server accepts it, but the catalogue does not \
             declare it.",
    purpose: "Arguments are checked like tools: what is not declared is denied.",
    run: |demo| {
        let arguments = r#"{"path": "/workspace/reports/q3.md", "tail": 1}"#;
        refused(demo, "files", "read_text_file", arguments, "argument_undeclared")
    },
};

/// Uses a value that is not in the declared list.
pub const OUTSIDE_ENUM: Step = Step {
    name: "value outside enum",
    action: "acme's reader asks for the time in America/Lima, a real time zone that the catalogue does not list.",
    purpose: "Only listed values are accepted.",
    run: |demo| {
        let arguments = r#"{"timezone": "America/Lima"}"#;
        refused(demo, "clock", "get_current_time", arguments, "argument_not_allowed")
    },
};

/// Uses a value that the catalogue allows but the scope does not.
pub const OUTSIDE_RANGE: Step = Step {
    name: "value outside range",
    action: "acme's reader asks for 500 lines. The catalogue allows up to 1000, the scope up to 100.",
    purpose: "A scope can narrow the catalogue, and both are enforced.",
    run: |demo| {
        let arguments = r#"{"path": "/workspace/reports/q3.md", "head": 500}"#;
        refused(demo, "files", "read_text_file", arguments, "argument_out_of_range")
    },
};

/// Applies a contradictory spec.
pub const CONTRADICTION: Step = Step {
    name: "contradiction",
    action: "Set two replicas on acme's server files, which has a workspace.",
    purpose: "The API server rejects a contradictory spec at once, with a message that says what to change.",
    run: |demo| {
        let patch = json!({"spec": {"replicas": 2}}).to_string();
        match demo.kubectl(&["patch", "mcpserver", "files", "-n", "acme", "--type=merge", "-p", &patch]) {
            Ok(output) => bail!("the API server should reject the change, but accepted it: {output}"),
            Err(error) => {
                let message = format!("{error:#}");
                let line = message.lines().find(|line| line.contains("lower replicas or remove workspace"));
                line.map(str::to_owned).ok_or(error)
            }
        }
    },
};

/// Arguments of [`PATH_UP`].
const PASSWD_BY_DOTS: &str = r#"{"path": "/workspace/reports/../../etc/passwd"}"#;

/// Makes a call as acme's reader, and checks that the caller sees a refusal with `reason`.
fn refused(demo: &Demo, server: &'static str, tool: &str, arguments: &str, reason: &str) -> Result<String> {
    let target = acme(demo, "reader", server)?;
    call(demo, &target, Era::Legacy, tool, &serde_json::from_str(arguments)?)?.expect_refusal(reason)
}

/// Calls a tool that acme's reader may not know about. Checks that the caller sees only `Unknown tool`, and that the
/// audit line has the real reason.
///
/// The Inspector refuses to call a tool that it has not been shown, so the demo's own client makes the call as well.
fn unknown_tool(demo: &Demo, tool: &str, arguments: &Value, reason: &str) -> Result<String> {
    let target = acme(demo, "reader", "files")?;
    let inspector = call(demo, &target, Era::Legacy, tool, arguments)?;
    let message = inspector.error.as_ref().and_then(|error| error["message"].as_str()).unwrap_or_default().to_owned();
    if inspector.exit == 0 || !message.contains("not found") {
        bail!("the Inspector should not find {tool}: {}", inspector.shown());
    }
    let answer = agent::request(demo, &target, "tools/call", &json!({"name": tool, "arguments": arguments}))?;
    let error = &answer["reply"]["error"];
    if error["code"] != json!(-32602) || error["message"] != json!(format!("Unknown tool: {tool}")) {
        bail!("expected error -32602 `Unknown tool`, got {answer}");
    }
    let line = demo.audit("acme-mcp", |line| line["tool"] == json!(tool) && line["decision"] == json!("denied"))?;
    if line["reason"] != json!(reason) {
        bail!("the audit line should have the reason {reason}: {line}");
    }
    Ok(format!(
        "the caller gets: {} {}\nthe audit line has the real reason: {reason}\nthe Inspector: {message}",
        error["code"], error["message"]
    ))
}
