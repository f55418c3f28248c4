//! Loops of agents that do not believe an error: retry storms, failures with other arguments, alternating failures.

use serde_json::{Value, json};

use super::super::trace::Trace;
use super::script::{Script, failed, ok};

pub fn traces() -> Vec<Trace> {
    let mut traces = Vec::new();
    for (name, tool, args, text) in [
        (
            "github-403",
            "github/create_pull_request",
            json!({"owner": "acme", "repo": "api", "head": "fix", "base": "main", "title": "Fix"}),
            "Error: 403 Resource not accessible by integration",
        ),
        (
            "postgres-down",
            "postgres/query",
            json!({"sql": "SELECT count(*) FROM orders"}),
            "connect ECONNREFUSED 10.2.0.14:5432",
        ),
        (
            "kubectl-forbidden",
            "kubernetes/kubectl_apply",
            json!({"manifest": "kind: Deployment"}),
            "Error from server (Forbidden): deployments.apps is forbidden: User \"agent\" cannot patch resource",
        ),
        (
            "slack-not-in-channel",
            "slack/slack_post_message",
            json!({"channel_id": "C042", "text": "Deployed"}),
            "{\"ok\":false,\"error\":\"not_in_channel\"}",
        ),
    ] {
        traces.push(storm(name, tool, &args, text));
        traces.push(slow(name, tool, &args, text));
    }
    traces.extend([
        missing_files("guesses-paths", 14),
        missing_files("guesses-paths-long", 30),
        wrong_columns(),
        edit_without_match("filesystem/edit_file"),
        edit_without_match("editor/str_replace"),
        nonce(),
        times_out_with_ids(),
        alternating(
            "git-push-pull",
            ["git/git_push", "git/git_pull"],
            ["! [rejected] main -> main (fetch first)", "error: cannot pull with rebase: You have unstaged changes."],
        ),
        alternating(
            "click-by-selector",
            ["playwright/browser_click", "playwright/browser_wait_for"],
            [
                "Error: locator.click: Timeout 5000ms exceeded. waiting for locator('#pay')",
                "Error: Timeout 30000ms exceeded waiting for selector #pay to be visible",
            ],
        ),
        three_fail(),
    ]);
    traces
}

fn storm(name: &str, tool: &str, args: &Value, text: &str) -> Trace {
    let mut script = Script::new(format!("loop-retry-storm-{name}"));
    script.look_around(4);
    let from = script.next();
    for _ in 0..24 {
        script.call(250..2500, tool, args.clone(), failed(text));
    }
    script.ends_as_loop(from)
}

/// The same at the pace of a schedule.
fn slow(name: &str, tool: &str, args: &Value, text: &str) -> Trace {
    let mut script = Script::new(format!("loop-slow-retry-{name}"));
    script.look_around(3);
    let from = script.next();
    for _ in 0..14 {
        script.call(110_000..260_000, tool, args.clone(), failed(text));
    }
    script.ends_as_loop(from)
}

fn missing_files(name: &str, guesses: u32) -> Trace {
    let mut script = Script::new(format!("loop-{name}"));
    script.look_around(5);
    let from = script.next();
    for guess in 0..guesses {
        let folder = ["src", "lib", "app", "core", "internal", "pkg"][guess as usize % 6];
        let path = format!("/workspace/{folder}/settings_{guess}.toml");
        let text = format!("Error: ENOENT: no such file or directory, open '{path}'");
        script.then("filesystem/read_text_file", json!({"path": path}), failed(text));
    }
    script.ends_as_loop(from)
}

fn wrong_columns() -> Trace {
    let mut script = Script::new("loop-sql-guesses-columns");
    script.then("postgres/list_tables", json!({}), ok("customers\norders\nitems"));
    let from = script.next();
    for column in ["total", "sum", "amount", "price", "value", "cost", "net", "gross", "revenue", "paid", "due", "vat"]
    {
        let sql = format!("SELECT sum({column}) FROM orders");
        let text = format!("ERROR: column \"{column}\" does not exist at character 12");
        script.then("postgres/query", json!({"sql": sql}), failed(text));
    }
    script.ends_as_loop(from)
}

/// Tries other texts to replace; reads the file again in between, which has not changed.
fn edit_without_match(tool: &str) -> Trace {
    let mut script = Script::new(format!("loop-edit-without-match-{}", tool.replace('/', "-")));
    script.look_around(3);
    let from = script.next();
    for attempt in 0..14 {
        let old = format!("fn handle(request: Request) {{ // {attempt}");
        let args = json!({"path": "/workspace/src/main.rs", "edits": [{"oldText": old, "newText": "fn handle() {"}]});
        script.then(tool, args, failed(format!("Could not find exact match for edit:\n{old}")));
        if attempt % 2 == 1 {
            let file = "use std::io;\n\nfn main() {}\n\nfn handle(r: &Request) -> Response { todo() }\n";
            script.then("filesystem/read_text_file", json!({"path": "/workspace/src/main.rs"}), ok(file));
        }
    }
    script.ends_as_loop(from)
}

/// The agent adds an argument that changes with each call.
fn nonce() -> Trace {
    let mut script = Script::new("loop-retry-with-nonce");
    script.look_around(3);
    let from = script.next();
    for _ in 0..20 {
        let nonce = script.random.u64(..);
        let args = json!({"url": format!("https://status.example.com/api?nocache={nonce}")});
        script.call(500..3000, "fetch/fetch", args, failed("Failed to fetch: HTTP 502 Bad Gateway"));
    }
    script.ends_as_loop(from)
}

/// The error names another request each time.
fn times_out_with_ids() -> Trace {
    let mut script = Script::new("loop-timeout-with-request-ids");
    script.look_around(3);
    let from = script.next();
    for _ in 0..16 {
        let id = script.random.u128(..);
        let hex = format!("{id:032x}");
        let id = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        let text =
            format!("gateway timeout after 30.0{}s (request {id} at {})", script.random.u32(0..10), script.clock());
        script.call(31_000..36_000, "warehouse/run_report", json!({"report": "monthly"}), failed(text));
    }
    script.ends_as_loop(from)
}

fn alternating(name: &str, tools: [&str; 2], texts: [&str; 2]) -> Trace {
    let mut script = Script::new(format!("loop-alternating-{name}"));
    script.look_around(4);
    let from = script.next();
    for _ in 0..12 {
        for (tool, text) in tools.iter().zip(texts) {
            script.then(tool, json!({"repo_path": "/workspace", "selector": "#pay"}), failed(text));
        }
    }
    script.ends_as_loop(from)
}

fn three_fail() -> Trace {
    let mut script = Script::new("loop-alternating-three-package-managers");
    script.look_around(2);
    let from = script.next();
    for attempt in 0..10 {
        for (command, text) in [
            ("npm install", "npm ERR! code E401\nnpm ERR! Unable to authenticate, need: Basic"),
            ("yarn install", "error An unexpected error occurred: \"https://npm.example.com: 401 Unauthorized\"."),
            ("pnpm install", "ERR_PNPM_FETCH_401  GET https://npm.example.com: Unauthorized - 401"),
        ] {
            let command = format!("{command} --retry {attempt}");
            script.then("shell/run_command", json!({"command": command}), failed(text));
        }
    }
    script.ends_as_loop(from)
}
