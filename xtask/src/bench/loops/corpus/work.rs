//! Honest work: bulk edits, paging, reading, test-fix cycles that progress.

use serde_json::json;

use super::super::trace::Trace;
use super::script::{Script, failed, ok};

pub fn traces() -> Vec<Trace> {
    vec![
        reads_many(40),
        reads_many(150),
        pages("github/list_issues", 20),
        pages("slack/slack_get_channel_history", 45),
        bulk_writes("filesystem/write_file", "Successfully wrote to the file", 60),
        bulk_writes("jira/update_issue", "{\"ok\":true}", 80),
        bulk_writes("kubernetes/kubectl_label", "labeled", 30),
        edits_and_checks("shell/cargo_check", "Finished `dev` profile [unoptimized + debuginfo] target(s)"),
        edits_and_checks("lint/run_lint", "All checks passed!"),
        test_fix("pytest", &[12, 12, 9, 9, 8, 5, 5, 5, 3, 2, 2, 1, 1, 0], true),
        test_fix("jest", &[4, 4, 4, 3, 3, 2, 1, 0], false),
        test_fix("go", &[31, 25, 25, 20, 17, 17, 11, 9, 4, 4, 4, 2, 0], true),
        compiler_errors(),
        probes(),
        scans_for_text(),
        checks_users(),
        git_work(),
        browses(),
        parallel_reads(),
        parallel_misses(),
        writes_rows(),
        rereads_while_working(),
        flaky_server(),
    ]
}

fn reads_many(files: u32) -> Trace {
    let mut script = Script::new(format!("work-reads-{files}-files"));
    for file in 0..files {
        let path = format!("/workspace/src/module_{file}/mod.rs");
        // Some files are empty.
        let text = if file % 9 == 4 {
            String::new()
        } else {
            format!("//! Module {file}.\n\npub const N: u32 = {};\n", file * 17)
        };
        script.call(300..3000, "filesystem/read_text_file", json!({"path": path}), ok(text));
    }
    script.ends_as_work()
}

fn pages(tool: &str, pages: u32) -> Trace {
    let mut script = Script::new(format!("work-pages-{}", tool.replace(['/', '_'], "-")));
    for page in 1..=pages {
        let items: Vec<_> =
            (0..5).map(|row| json!({"id": page * 30 + row, "text": format!("entry {}", page * 30 + row)})).collect();
        let result = if page == pages { json!([]) } else { json!(items) };
        script.call(400..2500, tool, json!({"page": page, "per_page": 5}), ok(result.to_string()));
    }
    script.ends_as_work()
}

fn bulk_writes(tool: &str, result: &str, number: u32) -> Trace {
    let mut script = Script::new(format!("work-bulk-{}", tool.replace(['/', '_'], "-")));
    script.look_around(3);
    for item in 0..number {
        script.call(
            300..2500,
            tool,
            json!({"path": format!("/workspace/out/{item}.md"), "content": format!("# {item}")}),
            ok(result),
        );
    }
    script.ends_as_work()
}

fn edits_and_checks(check: &str, result: &str) -> Trace {
    let mut script = Script::new(format!("work-edits-and-{}", check.replace(['/', '_'], "-")));
    script.look_around(3);
    for item in 0..24 {
        let args =
            json!({"path": format!("/workspace/src/f{item}.rs"), "edits": [{"oldText": "foo", "newText": "bar"}]});
        script.then("filesystem/edit_file", args, ok("Successfully edited the file"));
        let took = script.took();
        script.then(check, json!({}), ok(format!("{result} in {took}")));
    }
    script.ends_as_work()
}

/// The number of failures gets smaller, with a few attempts that do not help.
fn test_fix(runner: &str, failures: &[u32], exit_code: bool) -> Trace {
    let mut script = Script::new(format!("work-test-fix-{runner}"));
    script.look_around(4);
    for (round, number) in failures.iter().enumerate() {
        if round % 3 == 0 {
            let path = format!("/workspace/src/part_{round}.py");
            script.then(
                "filesystem/read_text_file",
                json!({"path": path}),
                ok(format!("def part_{round}():\n    return {round}\n")),
            );
        }
        let args = json!({"path": "/workspace/src/part.py", "edits": [{"oldText": format!("v{round}"), "newText": format!("v{}", round + 1)}]});
        script.then("filesystem/edit_file", args, ok(format!("-v{round}\n+v{}", round + 1)));
        let took = script.took();
        let text = match number {
            0 => format!("64 passed in {took}"),
            _ => format!("FAILED tests/test_part.py\n{number} failed, {} passed in {took}", 64 - number),
        };
        let answer = if *number > 0 && exit_code { failed(text) } else { ok(text) };
        script.then("shell/run_tests", json!({"runner": runner}), answer);
    }
    script.ends_as_work()
}

/// A compiler shows the next error after each fix.
fn compiler_errors() -> Trace {
    let mut script = Script::new("work-fixes-compiler-errors");
    script.look_around(3);
    for error in 0..18 {
        let name = ["Reader", "Writer", "Cursor", "Token", "Span", "Lexer"][error % 6];
        let text = format!(
            "error[E04{:02}]: cannot find type `{name}{error}` in this scope\n --> src/lib.rs:{}:9",
            error % 40,
            error * 13 + 4
        );
        script.then("shell/cargo_build", json!({}), failed(text));
        let args =
            json!({"path": "/workspace/src/lib.rs", "edits": [{"oldText": name, "newText": format!("{name}{error}")}]});
        script.then("filesystem/edit_file", args, ok("Successfully edited /workspace/src/lib.rs"));
    }
    script.then("shell/cargo_build", json!({}), ok("Finished `dev` profile"));
    script.ends_as_work()
}

/// Looks for a file in three places before it finds it, several times.
fn probes() -> Trace {
    let mut script = Script::new("work-probes-for-files");
    for package in ["api", "web", "worker", "docs", "cli"] {
        for name in ["package.json", "pyproject.toml", "go.mod", "Cargo.toml"] {
            let path = format!("/workspace/{package}/{name}");
            if name == "Cargo.toml" {
                script.then(
                    "filesystem/read_text_file",
                    json!({"path": path}),
                    ok(format!("[package]\nname = \"{package}\"\n")),
                );
            } else {
                let text = format!("Error: ENOENT: no such file or directory, open '{path}'");
                script.then("filesystem/read_text_file", json!({"path": path}), failed(text));
            }
        }
    }
    script.ends_as_work()
}

/// Most searches find nothing, and that is the answer.
fn scans_for_text() -> Trace {
    let mut script = Script::new("work-scans-for-secrets");
    for service in 0..40 {
        let result = match service % 5 {
            0 => format!("services/svc-{service}/config.py:{}: API_KEY = 'x'", service + 3),
            _ => "No matches found".to_owned(),
        };
        script.call(
            200..1500,
            "ripgrep/search",
            json!({"pattern": "API_KEY", "path": format!("services/svc-{service}")}),
            ok(result),
        );
    }
    script.ends_as_work()
}

fn checks_users() -> Trace {
    let mut script = Script::new("work-checks-every-user");
    for user in 0..50 {
        let id = 4000 + user;
        script.call(
            300..1500,
            "crm/get_user",
            json!({"id": id}),
            ok(json!({"id": id, "active": user % 7 != 0, "plan": "basic"}).to_string()),
        );
    }
    script.ends_as_work()
}

fn git_work() -> Trace {
    let mut script = Script::new("work-commits-one-by-one");
    for change in 0..12 {
        let file = format!("src/change_{change}.rs");
        script.then("filesystem/edit_file", json!({"path": file, "edits": []}), ok(format!("+// {change}")));
        script.then(
            "git/git_status",
            json!({"repo_path": "/workspace"}),
            ok(format!("On branch main\nChanges not staged for commit:\n\tmodified: {file}")),
        );
        script.then("git/git_add", json!({"files": [file]}), ok("Files staged successfully"));
        let hash = format!("{:016x}{:016x}", script.random.u64(..), script.random.u64(..));
        script.then(
            "git/git_commit",
            json!({"message": format!("Change {change}")}),
            ok(format!("Changes committed successfully with hash {hash}")),
        );
    }
    script.ends_as_work()
}

fn browses() -> Trace {
    let mut script = Script::new("work-browses-a-shop");
    for page in 0..20 {
        script.then("playwright/browser_click", json!({"ref": format!("e{}", page * 3 + 2)}), ok("Clicked"));
        script.then(
            "playwright/browser_snapshot",
            json!({}),
            ok(format!("- heading \"Product {page}\"\n- text \"{} EUR\"", page * 3 + 9)),
        );
    }
    script.ends_as_work()
}

/// Ten calls are sent at once, again and again.
fn parallel_reads() -> Trace {
    let mut script = Script::new("work-reads-in-parallel");
    for batch in 0..8 {
        for file in 0..10 {
            let pause = if file == 0 { 3000..6000 } else { 0..1 };
            let path = format!("/workspace/b{batch}/f{file}.md");
            script.call(
                pause,
                "filesystem/read_text_file",
                json!({"path": path}),
                ok(format!("# File {file} of {batch}\n")),
            );
        }
    }
    script.ends_as_work()
}

/// Twelve guesses are sent at once, and all are wrong; then the agent does something else.
fn parallel_misses() -> Trace {
    let mut script = Script::new("work-guesses-in-parallel");
    script.look_around(2);
    for guess in 0..12 {
        let pause = if guess == 0 { 3000..6000 } else { 0..1 };
        let path = format!("/workspace/guess_{guess}.md");
        script.call(
            pause,
            "filesystem/read_text_file",
            json!({"path": path}),
            failed(format!("Error: ENOENT: no such file or directory, open '{path}'")),
        );
    }
    script.look_around(8);
    script.ends_as_work()
}

fn writes_rows() -> Trace {
    let mut script = Script::new("work-inserts-rows");
    script.then("sqlite/list_tables", json!({}), ok("orders"));
    for row in 0..70 {
        let sql = format!("INSERT INTO orders VALUES ({row}, {})", script.random.u32(1..500));
        script.call(150..900, "sqlite/write_query", json!({"query": sql}), ok("[{'affected_rows': 1}]"));
    }
    script.then("sqlite/read_query", json!({"query": "SELECT count(*) FROM orders"}), ok("[{'count(*)': 70}]"));
    script.ends_as_work()
}

/// Reads the plan again before each step of other work.
fn rereads_while_working() -> Trace {
    let mut script = Script::new("work-rereads-its-plan");
    for step in 0..20 {
        script.then(
            "filesystem/read_text_file",
            json!({"path": "/workspace/PLAN.md"}),
            ok("# Plan\n\n1. port\n2. test\n3. document\n"),
        );
        script.then(
            "filesystem/read_text_file",
            json!({"path": format!("/workspace/src/s{step}.rs")}),
            ok(format!("fn step_{step}() {{}}")),
        );
        script.then(
            "filesystem/edit_file",
            json!({"path": format!("/workspace/src/s{step}.rs"), "edits": []}),
            ok("Successfully edited the file"),
        );
    }
    script.ends_as_work()
}

/// A server fails now and then, and the agent tries once more.
fn flaky_server() -> Trace {
    let mut script = Script::new("work-on-a-flaky-server");
    for document in 0..40 {
        let args = json!({"id": format!("doc-{document}")});
        if document % 3 == 1 {
            script.then("notion/get_page", args.clone(), failed("503 Service Unavailable"));
        }
        script.then("notion/get_page", args, ok(format!("# Document {document}\n")));
    }
    script.ends_as_work()
}
