//! What is allowed, and works.

use anyhow::bail;
use serde_json::json;

use super::{acme, beta};
use crate::demo::agent::{Era, call, list_tools};
use crate::demo::report::Step;
use crate::demo::stage::one_line;

/// For later: by then it has expired.
pub const EARLY_TOKEN: Step = Step {
    name: "early token",
    does: "sets a token of beta's planner aside; it lives for 2 minutes and will be tried again when it has expired",
    run: |stage| {
        stage.early_token = Some(stage.token("beta", "planner")?);
        Ok(format!("expires at {}", stage.credential("beta", "planner", "expiresAt")?))
    },
};

/// The catalogue, cut to what the caller may do.
pub const NARROWED_LIST: Step = Step {
    name: "narrowed list",
    does: "acme's reader lists the tools of files with the MCP Inspector",
    run: |stage| {
        let answer = list_tools(stage, &acme(stage, "reader", "files")?, Era::Legacy)?;
        let tools = answer.result.as_ref().and_then(|result| result["tools"].as_array()).cloned().unwrap_or_default();
        let names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
        if names.is_empty() || names.contains(&"write_file") || names.contains(&"move_file") {
            bail!("the list should hold the granted tools only: {}", answer.shown());
        }
        let read = tools.iter().find(|tool| tool["name"] == json!("read_text_file"));
        let properties = read.map(|tool| tool["inputSchema"]["properties"].clone()).unwrap_or_default();
        let text = properties.to_string();
        if properties["head"]["maximum"] != json!(100) || properties.get("tail").is_some() {
            bail!("read_text_file should be narrowed to path and head ≤ 100: {text}");
        }
        Ok(format!("{}\nread_text_file takes {text}", names.join(", ")))
    },
};

/// In both eras of the protocol.
pub const ALLOWED_READ: Step = Step {
    name: "allowed read",
    does: "acme's reader reads a report with the MCP Inspector, with a session (2025-11-25) and without (2026-07-28)",
    run: |stage| {
        let mut said = String::new();
        for era in [Era::Legacy, Era::Modern] {
            let target = acme(stage, "reader", "files")?;
            let answer =
                call(stage, &target, era, "read_text_file", &json!({"path": "/workspace/reports/q3.md", "head": 5}))?;
            said = answer.text()?;
            if !said.contains("Revenue is up.") {
                bail!("not the report: {}", answer.shown());
            }
            stage.pay("acme", "reader", 1_000);
        }
        Ok(one_line(&said))
    },
};

/// With the scope for it.
pub const ALLOWED_WRITE: Step = Step {
    name: "allowed write",
    does: "acme's writer, who holds the scope files-write, writes a draft",
    run: |stage| {
        let target = acme(stage, "writer", "files")?;
        let draft = json!({"path": "/workspace/drafts/plan.md", "content": "- first\n- second\n"});
        let text = call(stage, &target, Era::Legacy, "write_file", &draft)?.text()?;
        stage.pay("acme", "writer", 10_000);
        Ok(one_line(&text))
    },
};

/// Its own server, its own money.
pub const OTHER_TENANT_CALLS: Step = Step {
    name: "second tenant",
    does: "beta's planner asks beta's own clock",
    run: |stage| {
        let arguments = json!({"timezone": "Asia/Tokyo"});
        let text = call(stage, &beta(stage)?, Era::Modern, "get_current_time", &arguments)?.text()?;
        stage.pay("beta", "planner", 2_000);
        Ok(one_line(&text))
    },
};
