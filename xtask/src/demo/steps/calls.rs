//! Allowed calls, which succeed.

use anyhow::bail;
use serde_json::json;

use super::{acme, beta};
use crate::demo::agent::{Era, call, list_tools};
use crate::demo::report::Step;
use crate::demo::state::one_line;

/// Saves a token until it has expired.
pub const EARLY_TOKEN: Step = Step {
    name: "early token",
    action: "Save the current token of beta's planner, which is valid for 2 minutes. A later step uses it after that.",
    purpose: "Prepares the check that an expired token is refused.",
    run: |demo| {
        demo.early_token = Some(demo.token("beta", "planner")?);
        Ok(format!("expires at {}", demo.credential("beta", "planner", "expiresAt")?))
    },
};

/// Lists the tools that a caller may use.
pub const NARROWED_LIST: Step = Step {
    name: "narrowed list",
    action: "acme's reader lists the tools of the server files with the MCP Inspector.",
    purpose: "An agent sees only the tools and arguments that it may use.",
    run: |demo| {
        let answer = list_tools(demo, &acme(demo, "reader", "files")?, Era::Legacy)?;
        let tools = answer.result.as_ref().and_then(|result| result["tools"].as_array()).cloned().unwrap_or_default();
        let names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
        if names.is_empty() || names.contains(&"write_file") || names.contains(&"move_file") {
            bail!("the list should contain only granted tools: {}", answer.shown());
        }
        let read = tools.iter().find(|tool| tool["name"] == json!("read_text_file"));
        let properties = read.map(|tool| tool["inputSchema"]["properties"].clone()).unwrap_or_default();
        let text = properties.to_string();
        if properties["head"]["maximum"] != json!(100) || properties.get("tail").is_some() {
            bail!("read_text_file should accept only path, and head up to 100, but accepts {text}");
        }
        Ok(format!("{}\nread_text_file accepts {text}", names.join(", ")))
    },
};

/// Reads a file, with both protocol revisions.
pub const ALLOWED_READ: Step = Step {
    name: "allowed read",
    action: "acme's reader reads a report twice: with MCP revision 2025-11-25, which has sessions, and with the \
             stateless revision 2026-07-28.",
    purpose: "Allowed calls work for older and for newer MCP clients.",
    run: |demo| {
        let mut text = String::new();
        for era in [Era::Legacy, Era::Modern] {
            let target = acme(demo, "reader", "files")?;
            let answer =
                call(demo, &target, era, "read_text_file", &json!({"path": "/workspace/reports/q3.md", "head": 5}))?;
            text = answer.text()?;
            if !text.contains("Revenue is up.") {
                bail!("this is not the report: {}", answer.shown());
            }
            demo.record_charge("acme", "reader", 1_000);
        }
        Ok(one_line(&text))
    },
};

/// Writes a file.
pub const ALLOWED_WRITE: Step = Step {
    name: "allowed write",
    action: "acme's writer, which holds the scope files-write, writes a draft.",
    purpose: "A principal may write only if it holds a scope that grants it.",
    run: |demo| {
        let target = acme(demo, "writer", "files")?;
        let draft = json!({"path": "/workspace/drafts/plan.md", "content": "- first\n- second\n"});
        let text = call(demo, &target, Era::Legacy, "write_file", &draft)?.text()?;
        demo.record_charge("acme", "writer", 10_000);
        Ok(one_line(&text))
    },
};

/// Calls a server of the second tenant.
pub const SECOND_TENANT: Step = Step {
    name: "second tenant",
    action: "beta's planner asks beta's own clock for the time in Tokyo.",
    purpose: "Every tenant has its own gateway, servers, credentials and budget.",
    run: |demo| {
        let arguments = json!({"timezone": "Asia/Tokyo"});
        let text = call(demo, &beta(demo)?, Era::Modern, "get_current_time", &arguments)?.text()?;
        demo.record_charge("beta", "planner", 2_000);
        Ok(one_line(&text))
    },
};
