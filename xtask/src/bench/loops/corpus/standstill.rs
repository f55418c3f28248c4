//! Loops that bring nothing new: endless pagination, screenshots, searches in other words, reading again.

use serde_json::json;

use super::super::trace::Trace;
use super::script::{Script, ok};

pub fn traces() -> Vec<Trace> {
    vec![
        same_page("page-number", "github/list_issues", "page", false),
        same_page("cursor", "linear/list_issues", "cursor", false),
        same_page("page-echoed", "jira/search_issues", "page", true),
        beyond_the_end(),
        screenshots("waits", false),
        screenshots("clicks", true),
        scrolls(),
        rephrases("web", "brave/brave_web_search", "No results found."),
        rephrases("code", "github/search_code", "{\"total_count\":0,\"incomplete_results\":false,\"items\":[]}"),
        rephrases("same-hits", "docs/search_docs", "1. Getting started\n2. Configuration\n3. Upgrading"),
        reads_again("filesystem/read_text_file", 1500..6000),
        reads_again("memory/read_graph", 300..900),
        reads_slowly(),
        rotates_tools(),
        rotates_with_nonce(),
    ]
}

/// The server ignores the page, and returns the first one each time.
fn same_page(name: &str, tool: &str, argument: &str, echoed: bool) -> Trace {
    let mut script = Script::new(format!("loop-pagination-{name}"));
    script.look_around(3);
    let from = script.next();
    for page in 1..=24_u32 {
        let value = if argument == "page" { json!(page) } else { json!(format!("c{:08x}", script.random.u32(..))) };
        let items: Vec<_> = (101..109).map(|id| json!({"id": id, "title": format!("Problem {id}")})).collect();
        let result = if echoed { json!({"page": page, "issues": items}) } else { json!({"issues": items}) };
        script.call(700..3500, tool, json!({argument: value, "limit": 8}), ok(result.to_string()));
    }
    script.ends_as_loop(from)
}

/// The agent does not notice that there are no more pages.
fn beyond_the_end() -> Trace {
    let mut script = Script::new("loop-pagination-beyond-the-end");
    for page in 1..=5_u32 {
        let rows: Vec<_> = (0..10)
            .map(|row| json!({"id": page * 10 + row, "mail": format!("u{}@example.com", page * 10 + row)}))
            .collect();
        script.call(700..3000, "crm/list_contacts", json!({"offset": page * 10}), ok(json!(rows).to_string()));
    }
    let from = script.next();
    for page in 6..=26_u32 {
        script.call(700..3000, "crm/list_contacts", json!({"offset": page * 10}), ok("[]"));
    }
    script.ends_as_loop(from)
}

fn screenshots(name: &str, clicks: bool) -> Trace {
    let mut script = Script::new(format!("loop-screenshots-{name}"));
    script.then(
        "playwright/browser_navigate",
        json!({"url": "https://shop.example/cart"}),
        ok("Navigated to https://shop.example/cart"),
    );
    let from = script.next();
    for _ in 0..20 {
        if clicks {
            let (x, y) = (script.random.u32(600..640), script.random.u32(400..420));
            script.then("playwright/browser_mouse_click_xy", json!({"x": x, "y": y}), ok("Clicked"));
        }
        script.call(
            2000..5000,
            "playwright/browser_take_screenshot",
            json!({"type": "png"}),
            ok("iVBORw0KGgoAAAANSUhEUgAABQAAAALQCAYAAADPfd1WAAAgAElEQVR4nOzdd3xUVf7/8"),
        );
    }
    script.ends_as_loop(from)
}

fn scrolls() -> Trace {
    let mut script = Script::new("loop-screenshots-scrolls");
    script.then("browser/navigate", json!({"url": "https://news.example/"}), ok("OK"));
    let from = script.next();
    for _ in 0..20 {
        let by = script.random.u32(2..9) * 100;
        script.then("browser/scroll", json!({"dy": by}), ok("OK"));
        script.then(
            "browser/snapshot",
            json!({}),
            ok("- heading \"News\"\n- text \"We use cookies\"\n- button \"Accept\""),
        );
    }
    script.ends_as_loop(from)
}

fn rephrases(name: &str, tool: &str, result: &str) -> Trace {
    let words = ["operator", "lease", "expiry", "kubernetes", "rust", "leader", "election", "timeout", "renewal"];
    let mut script = Script::new(format!("loop-search-rephrased-{name}"));
    script.look_around(3);
    let from = script.next();
    for _ in 0..22 {
        let number = script.random.usize(2..6);
        let chosen: Vec<&str> = (0..number).map(|_| words[script.random.usize(0..words.len())]).collect();
        script.then(tool, json!({"query": chosen.join(" ")}), ok(result));
    }
    script.ends_as_loop(from)
}

fn reads_again(tool: &str, pause: std::ops::Range<u64>) -> Trace {
    let mut script = Script::new(format!("loop-reads-again-{}", tool.replace(['/', '_'], "-")));
    script.look_around(4);
    let from = script.next();
    for _ in 0..22 {
        script.call(
            pause.clone(),
            tool,
            json!({"path": "/workspace/NOTES.md"}),
            ok("# Notes\n\n- port the cache\n- write tests\n"),
        );
    }
    script.ends_as_loop(from)
}

fn reads_slowly() -> Trace {
    let mut script = Script::new("loop-slow-reads-again");
    script.look_around(2);
    let from = script.next();
    for _ in 0..24 {
        script.call(
            55_000..65_000,
            "notion/get_page",
            json!({"id": "runbook"}),
            ok("# Runbook\n\n1. Look at the dashboard\n"),
        );
    }
    script.ends_as_loop(from)
}

/// Six tools in a changing order; none has anything new.
fn rotates_tools() -> Trace {
    let mut script = Script::new("loop-rotates-six-tools");
    script.look_around(3);
    let tools = [
        ("github/get_issue", "{\"number\":7,\"title\":\"Flaky test\"}"),
        ("github/list_commits", "a1b2c3 Fix typo\nd4e5f6 Add cache"),
        ("filesystem/get_file_info", "size: 812\nmode: 644"),
        ("git/git_log", "commit a1b2c3\nAuthor: Ann"),
        ("kubernetes/list_pods", "api-7d9 1/1\nweb-5c4 1/1"),
        ("docs/search_docs", "1. Flaky tests"),
    ];
    for (tool, result) in tools {
        script.then(tool, json!({"id": 7}), ok(result));
    }
    let from = script.next();
    for _ in 0..40 {
        let (tool, result) = tools[script.random.usize(0..tools.len())];
        script.then(tool, json!({"id": 7}), ok(result));
    }
    script.ends_as_loop(from)
}

fn rotates_with_nonce() -> Trace {
    let mut script = Script::new("loop-rotates-tools-with-nonce");
    script.look_around(3);
    let from = script.next();
    for call in 0..40_u32 {
        let tool = ["crm/find_contact", "crm/search_accounts", "billing/list_invoices"][call as usize % 3];
        let trace = script.random.u32(..);
        script.then(tool, json!({"name": "Initech", "trace": trace}), ok("{\"items\":[]}"));
    }
    script.ends_as_loop(from)
}
