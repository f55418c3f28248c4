//! `mcp-fleet try` with the example, as a user runs it: real processes, and calls with curl. `cargo xtask test try` runs
//! these tests. They need Landlock and user namespaces, as `mcp-fleet try` does.
#![allow(clippy::unwrap_used, clippy::panic)]

mod changes;
mod life;
mod sandbox;
mod support;

use support::{Trial, reason, text, until};

#[test]
fn the_printed_calls_can_be_pasted() {
    let trial = Trial::start(&[]);
    let [allowed, refused] = &trial.printed_calls()[..] else { panic!("two calls") };
    assert_eq!(text(allowed), "there are no notes yet");
    assert_eq!(reason(refused), "path_outside_roots");
    let decisions =
        || trial.audit().iter().map(|line| line["decision"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    until("both audit lines are written", || (decisions() == ["allowed", "denied"]).then_some(()));
    assert!(trial.metric("mcp_pod_calls_total{") >= 2.0);
    for missing in ["network policies", "images", "quotas"] {
        assert!(trial.output().contains(missing), "it is not said that {missing} are missing");
    }
}

#[test]
fn what_is_written_is_in_the_workspace_on_this_machine() {
    let trial = Trial::start(&[]);
    let note = serde_json::json!({"path": "/workspace/notes/drafts/a.md", "content": "hello"});
    assert_eq!(text(&trial.call("writer", "write_note", &note)), "wrote /workspace/notes/drafts/a.md");
    let written = trial.state().join("workspaces/acme/notes/notes/drafts/a.md");
    assert_eq!(std::fs::read_to_string(written).unwrap(), "hello");
    let read = serde_json::json!({"path": "/workspace/notes/drafts/a.md"});
    assert_eq!(text(&trial.call("reader", "read_note", &read)), "hello");
}
