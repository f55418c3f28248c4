//! What happens when files change, and what survives a restart.

use serde_json::json;

use crate::support::{Trial, reason, text, until};

#[test]
fn a_budget_runs_out_and_stays_so_after_a_restart() {
    let trial = Trial::start(&[]);
    let write = |trial: &Trial| {
        trial.call("writer", "write_note", &json!({"path": "/workspace/notes/drafts/a.md", "content": "x"}))
    };
    for _ in 0..3 {
        text(&write(&trial));
    }
    assert_eq!(reason(&write(&trial)), "budget_exhausted");
    let url = trial.credential("writer", "url");
    let trial = trial.restart();
    assert_eq!(trial.credential("writer", "url"), url, "the port is the same");
    assert_eq!(reason(&write(&trial)), "budget_exhausted");
    trial.edit("30-principals.yaml", "calls: 3", "calls: 5");
    until("the raised budget is in force", || (write(&trial)["result"]["isError"] == false).then_some(()));
}

#[test]
fn a_revoked_token_is_refused_and_another_one_issued() {
    let trial = Trial::start(&[]);
    let before = trial.credential("reader", "token");
    text(&trial.call_with(&before, "list_notes", &json!({})));
    let revoked = format!("scopeRefs: [{{name: notes-read}}]\n  revokeIssuedBefore: {}", jiff::Timestamp::now());
    trial.edit("30-principals.yaml", "scopeRefs: [{name: notes-read}]", &revoked);
    until("the token is refused", || {
        trial.call_with(&before, "list_notes", &json!({}))["error"]["message"].as_str().map(str::to_owned)
    });
    until("there is another token", || (trial.credential("reader", "token") != before).then_some(()));
    text(&trial.call("reader", "list_notes", &json!({})));
    // Removing the revocation makes no token valid again.
    trial.edit("30-principals.yaml", &revoked, "scopeRefs: [{name: notes-read}]");
    trial.wait_for("MCPPrincipal acme/reader configured\nMCPPrincipal acme/reader configured");
    assert!(trial.call_with(&before, "list_notes", &json!({}))["error"].is_object());
}

#[test]
fn an_edit_follows_and_a_bad_one_leaves_what_was_in_force() {
    let trial = Trial::start(&[]);
    let list = || trial.call("reader", "list_notes", &json!({}));
    text(&list());
    trial.edit("30-principals.yaml", "scopeRefs: [{name: notes-read}]", "scopeRefs: []");
    until("the grant is withdrawn", || list()["error"].is_object().then_some(()));
    trial.edit("30-principals.yaml", "scopeRefs: []", "scopeRefs: [{nam: notes-read}]");
    trial.wait_for("30-principals.yaml:6: MCPPrincipal acme/reader: strict decoding error: unknown field");
    assert!(list()["error"].is_object(), "a bad edit changed what is in force");
    trial.edit("30-principals.yaml", "{nam: notes-read}", "{name: missing}");
    trial.wait_for("not in force: MCPPrincipal reader: ScopeNotFound");
    trial.edit("30-principals.yaml", "{name: missing}", "{name: notes-read}");
    until("the grant is back", || list()["result"].is_object().then_some(()));
    // A file that is not YAML deletes nothing.
    trial.edit("30-principals.yaml", "kind: MCPBudget", "kind: [");
    trial.wait_for("not applied:");
    text(&list());
}
