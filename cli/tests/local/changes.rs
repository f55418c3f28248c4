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

#[test]
fn tokens_rotate_and_the_one_before_stays_valid() {
    let trial = Trial::start(&[]);
    let first = trial.credential("reader", "token");
    // The next one is issued two seconds after each.
    trial.edit("10-tenant.yaml", "lifetime: 1h, overlap: 10m", "lifetime: 1m, overlap: 58s");
    let next = |before: &str| {
        until("there is another token", || {
            let token = trial.credential("reader", "token");
            (token != before).then_some(token)
        })
    };
    let second = next(&first);
    let third = next(&second);
    for token in [&second, &third] {
        text(&trial.call_with(token, "list_notes", &json!({})));
    }
    assert!(trial.credential("reader", "expiresAt") > trial.credential("reader", "rotatesAt"));
}

#[test]
fn the_kill_switch_stops_all_calls() {
    let trial = Trial::start(&[]);
    let list = || trial.call("reader", "list_notes", &json!({}));
    text(&list());
    let file = trial.folder().join("files/stop.yaml");
    let switch = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mcp-fleet-kill-switch, namespace: mcp-fleet-system}\n\
                  data: {stop: 'true', reason: a drill}\n";
    std::fs::write(&file, switch).unwrap();
    until("calls are refused", || list().to_string().contains("a drill").then_some(()));
    std::fs::remove_file(&file).unwrap();
    until("calls are allowed", || (list()["result"]["isError"] == false).then_some(()));
}

#[test]
fn a_server_whose_program_changes_is_started_again() {
    let trial = Trial::start(&[]);
    let log = trial.state().join("logs/server-acme-notes.log");
    let starts = || std::fs::read_to_string(&log).unwrap().matches("the server takes calls").count();
    assert_eq!(starts(), 1);
    trial.edit("20-notes.yaml", "      command:", "      env: [{name: GREETING, value: hello}]\n      command:");
    until("the server has started again", || (starts() == 2).then_some(()));
    until("calls work again", || {
        (trial.call("reader", "list_notes", &json!({}))["result"]["isError"] == false).then_some(())
    });
}

#[test]
fn two_tenants_share_nothing() {
    let trial = Trial::start(&[]);
    let text_of = |name: &str| std::fs::read_to_string(trial.folder().join("files").join(name)).unwrap();
    let all = ["10-tenant.yaml", "20-notes.yaml", "30-principals.yaml"].map(text_of).join("---\n");
    std::fs::write(trial.folder().join("files/beta.yaml"), all.replace("acme", "beta")).unwrap();
    let entry = |tenant: &str, name: &str| {
        std::fs::read_to_string(trial.state().join("credentials").join(tenant).join("reader").join(name)).ok()
    };
    // The entries of a credential are written one after the other.
    let url = until("the other tenant has a URL", || entry("beta", "url"));
    let token = |tenant: &str| until("a tenant has a token", || entry(tenant, "token"));
    until("the other tenant's gateway works", || {
        let answer = trial.try_call_at(&url, &token("beta"), "list_notes", &json!({}))?;
        (answer["result"]["isError"] == false).then_some(())
    });
    let refused = trial.try_call_at(&url, &token("acme"), "list_notes", &json!({})).unwrap();
    assert!(refused["error"].is_object(), "{refused}");
    // A tenant that is not declared any more is gone.
    std::fs::remove_file(trial.folder().join("files/beta.yaml")).unwrap();
    until("the other gateway has ended", || {
        trial.try_call_at(&url, "none", "list_notes", &json!({})).is_none().then_some(())
    });
    text(&trial.call("reader", "list_notes", &json!({})));
}
