//! The built-in tools `fleet_status` and `fleet_report_stuck`.

use mcp_fleet_policy::budget::BudgetBalance;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Budget, BudgetMode, Selector};
use mcp_fleet_policy::units::Micros;
use serde_json::{Value, json};

use crate::support::{Behaviour, Client, OTHER, TestGateway, Token, now, tool};

/// Calls a tool in a revision. Returns its result.
async fn call(client: &mut Client, modern: bool, tool: &str, arguments: Value) -> Value {
    let answer = if modern { client.call(tool, arguments).await } else { client.legacy_call(tool, arguments).await };
    let message = answer.json();
    assert_eq!(answer.status, 200, "{message}");
    let result = message["result"].clone();
    assert_eq!(result["resultType"] == "complete", modern, "{message}");
    result
}

async fn status(client: &mut Client) -> Value {
    let result = call(client, true, "fleet_status", json!({})).await;
    assert_eq!(result["isError"], false, "{result}");
    result["structuredContent"].clone()
}

async fn other(gateway: &TestGateway) -> Client {
    gateway.client_with(&gateway.pki.token(Token { principal: OTHER, ..Token::default() })).await
}

/// Starts a gateway with two principals that may call the same tools.
async fn shared() -> TestGateway {
    TestGateway::with(|policy| policy.principals[1].grants = policy.principals[0].grants.clone()).await
}

#[tokio::test]
async fn an_agent_sees_who_it_is_and_what_is_left() {
    let gateway = TestGateway::with(|policy| {
        policy.principals[0].limits.calls_per_minute = Some(60);
        policy.principals[0].limits.burst = Some(5);
        policy.principals[0].limits.max_concurrent_calls = Some(4);
        policy.budgets[0].selector = Selector { principals: Some(vec!["coder-uid".into()]), ..Selector::default() };
        let theirs = Selector { principals: Some(vec![OTHER.into()]), ..Selector::default() };
        let budget =
            Budget { name: "secret".into(), uid: "secret-uid".into(), selector: theirs, ..policy.budgets[0].clone() };
        policy.budgets.push(budget);
    })
    .await;
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let legacy = call(&mut client, false, "fleet_status", json!({})).await;
    let shown = legacy["structuredContent"].clone();
    assert_eq!(serde_json::from_str::<Value>(legacy["content"][0]["text"].as_str().unwrap()).unwrap(), shown);
    assert_eq!((shown["principal"].as_str(), shown["tenant"].as_str()), (Some("acme/coder"), Some("acme")));
    assert_eq!(shown["scopes"][0]["server"], "files");
    assert_eq!(shown["limits"]["calls"], json!({"perMinute": 60, "burst": 5, "left": 0}));
    assert_eq!(shown["limits"]["callsInFlight"], json!({"max": 4, "now": 0}));
    assert_eq!(shown["budgets"][0]["name"], "daily");
    assert_eq!(
        (shown["budgets"][0]["amount"].as_str(), shown["budgets"][0]["calls"].as_u64()),
        (Some("5"), Some(1_000_000))
    );
    assert_eq!(shown["budgets"][0]["state"], "unknown", "nothing was leased yet");
    assert_eq!(shown["budgets"][0]["mode"], "Enforce");
    assert_eq!((shown["budgets"][0].get("remaining"), shown["budgets"][0].get("ledgerAgeMs")), (None, None));
    let expires: jiff::Timestamp = shown["credentialExpiresAt"].as_str().unwrap().parse().unwrap();
    assert!((1..=3600 * 24).contains(&(expires.as_second() - now())), "{shown}");
    assert!(!shown.to_string().contains("secret") && !shown.to_string().contains("other"), "{shown}");
    // The rates apply, as to any call.
    let denied = call(&mut client, true, "fleet_status", json!({})).await;
    assert_eq!(denied["_meta"]["mcp-fleet.dev/denial"]["reason"], "rate_limited");
    assert!(gateway.shim.calls().is_empty());
}

#[tokio::test]
async fn a_call_of_a_built_in_tool_is_audited_and_counted_under_a_server_of_its_own() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    status(&mut client).await;
    let denied = call(&mut client, true, "fleet_status", json!({"principal": "other"})).await;
    assert_eq!(denied["_meta"]["mcp-fleet.dev/denial"]["reason"], "argument_undeclared");
    let lines = gateway.audit_lines(2).await;
    for (line, decision) in lines.iter().zip(["allowed", "denied"]) {
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        assert_eq!((field("decision"), field("server"), field("tool")), (decision, "mcp-fleet.dev", "fleet_status"));
        assert!(field("arguments").starts_with("blake3-keyed:"));
        let labels = format!(
            r#"decision="{decision}",principal="acme/coder",server="mcp-fleet.dev",tenant="acme",tool="fleet_status""#
        );
        assert!((gateway.metric("mcp_pod_calls_total", &labels) - 1.0).abs() < 0.1, "{labels}");
    }
    assert_eq!(gateway.ledger.spent().await.calls, 0);
}

#[tokio::test]
async fn the_state_of_budgets_and_breakers_is_shown_to_those_that_they_concern() {
    let gateway = TestGateway::with(|policy| {
        policy.servers[0].breaker.minimum_calls = 2;
        policy.principals[1].grants = policy.principals[0].grants.clone();
    })
    .await;
    let mut client = gateway.client().await;
    gateway.shim.answer("garbage\n");
    for _ in 0..2 {
        client.call("echo", json!({})).await;
    }
    let shown = status(&mut client).await;
    assert_eq!(shown["budgets"][0]["state"], "available");
    let paused = &shown["paused"][0];
    assert_eq!(
        (paused["tool"].as_str(), paused["reason"].as_str(), paused["state"].as_str()),
        (Some("echo"), Some("breaker_open"), Some("open"))
    );
    assert!((1..=30_000).contains(&paused["retryAfterMs"].as_u64().unwrap()));
    assert_eq!(status(&mut other(&gateway).await).await["paused"], json!([]));
    gateway.ledger.exhaust(now() + 3600);
    gateway.change_policy(|policy| policy.budgets[0].uid = "next-uid".into());
    client.call("read", json!({"path": "/workspace/a"})).await;
    assert_eq!(status(&mut client).await["budgets"][0]["state"], "exhausted");
}

#[tokio::test]
async fn an_agent_sees_what_is_left_of_the_budgets_of_its_tools() {
    let gateway = TestGateway::with(|policy| {
        let daily = policy.budgets[0].clone();
        let monitored = Selector { servers: Some(vec![policy.servers[0].uid.clone()]), ..Selector::default() };
        let foreign = Selector { servers: Some(vec!["nothing-uid".into()]), ..Selector::default() };
        let destructive = Selector { classes: Some(vec![Class::Destructive]), ..Selector::default() };
        for (name, selector, mode) in [
            ("monitored", monitored, BudgetMode::Monitor),
            ("foreign", foreign, BudgetMode::Enforce),
            ("destructive", destructive, BudgetMode::Enforce),
        ] {
            policy.budgets.push(Budget {
                name: name.into(),
                uid: format!("{name}-uid"),
                selector,
                mode,
                ..daily.clone()
            });
        }
    })
    .await;
    let balance = |budget: &str, left: u64| BudgetBalance {
        budget_uid: budget.into(),
        left_amount: Some(Micros::new(left)),
        left_calls: Some(17),
        spent_amount: Micros::new(250_000),
        spent_calls: 3,
        period_end: now() + 3600,
        as_of: 1,
    };
    let mut client = gateway.client().await;
    let leases = &gateway.ledger.leases;
    leases.note_balance(balance("daily-uid", 4_750_000));
    leases.note_balance(balance("monitored-uid", 0));
    let shown = status(&mut client).await["budgets"].clone();
    let names: Vec<&str> = shown.as_array().unwrap().iter().map(|budget| budget["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["daily", "monitored"], "budgets of tools that the caller may not call");
    assert_eq!(shown[0]["remaining"], json!({"amount": "4.75", "calls": 17}));
    assert_eq!(shown[0]["spent"], json!({"amount": "0.25", "calls": 3}));
    assert!(shown[0]["ledgerAgeMs"].as_u64().unwrap() < 60_000, "{shown}");
    assert_eq!((&shown[1]["mode"], &shown[1]["remaining"]["amount"]), (&json!("Monitor"), &json!("0")));
    let listed = client.modern("tools/list", json!({})).await.json()["result"]["tools"].clone();
    let schema = listed.as_array().unwrap().iter().find(|tool| tool["name"] == "fleet_status").unwrap();
    let described = &schema["outputSchema"]["properties"]["budgets"]["items"]["properties"];
    for (name, _) in shown[0].as_object().unwrap() {
        assert!(described[name].is_object(), "{name} is not in the output schema");
    }
}

#[tokio::test]
async fn an_agent_that_reports_that_it_is_stuck_stops_only_itself() {
    for modern in [true, false] {
        let gateway = shared().await;
        let (mut client, mut other) = (gateway.client().await, other(&gateway).await);
        client.initialize("2025-11-25").await;
        let reported = call(&mut client, modern, "fleet_report_stuck", json!({"reason": "the tests never pass"})).await;
        assert_eq!(reported["structuredContent"], json!({"reported": true, "retryAfterMs": 300_000}));
        assert!(reported["content"][0]["text"].as_str().unwrap().contains("mcp-fleet.dev/clear-breakers"));
        let refused = call(&mut client, modern, "echo", json!({})).await;
        let denial = &refused["_meta"]["mcp-fleet.dev/denial"];
        assert_eq!(denial["reason"], "reported_stuck");
        assert!((200_000..=300_000).contains(&denial["retryAfterMs"].as_u64().unwrap()), "{denial}");
        assert_eq!(status(&mut client).await["paused"][0]["reason"], "reported_stuck");
        assert_eq!(call(&mut other, true, "echo", json!({})).await["content"][0]["text"], "done");
        assert_eq!(status(&mut other).await["paused"], json!([]));
        assert_eq!(gateway.shim.calls().len(), 1);
        let labels = r#"principal="acme/coder",server="files",tenant="acme""#;
        assert!((gateway.metric("mcp_pod_stuck_reports_total", labels) - 1.0).abs() < 0.1);
        assert!(!String::from_utf8_lossy(gateway.metrics().as_bytes()).contains("never pass"));
        let audited = gateway.audit_lines(6).await;
        assert!(!audited.iter().any(|line| line.to_string().contains("never pass")), "an audit line holds no values");
    }
}

#[tokio::test]
async fn a_report_about_one_tool_leaves_the_others_and_names_only_what_is_granted() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let report = |tool: &str| json!({"reason": "-", "tool": tool});
    for unknown in ["wipe", "nope", "fleet_status"] {
        let denied = call(&mut client, true, "fleet_report_stuck", report(unknown)).await;
        let denial = &denied["_meta"]["mcp-fleet.dev/denial"];
        assert_eq!(
            (denial["reason"].as_str(), denial["argument"].as_str()),
            (Some("argument_not_allowed"), Some("tool"))
        );
    }
    let long = call(&mut client, true, "fleet_report_stuck", json!({"reason": "x".repeat(501)})).await;
    assert_eq!(long["_meta"]["mcp-fleet.dev/denial"]["reason"], "argument_out_of_range");
    call(&mut client, true, "fleet_report_stuck", report("echo")).await;
    let refused = call(&mut client, true, "echo", json!({})).await;
    assert_eq!(refused["_meta"]["mcp-fleet.dev/denial"]["reason"], "reported_stuck");
    let read = call(&mut client, true, "read", json!({"path": "/workspace/a"})).await;
    assert_eq!(read["content"][0]["text"], "done");
}

#[tokio::test]
async fn a_person_clears_breakers_and_reports_and_that_is_audited() {
    let gateway = TestGateway::with(|policy| policy.servers[0].breaker.minimum_calls = 2).await;
    let mut client = gateway.client().await;
    gateway.shim.answer("garbage\n");
    for _ in 0..2 {
        client.call("echo", json!({})).await;
    }
    gateway.shim.answer("{\"result\":{}}\n");
    call(&mut client, true, "fleet_report_stuck", json!({"reason": "-"})).await;
    // Another policy clears nothing, nor does an annotation of another principal.
    gateway.change_policy(|policy| policy.principals[1].breakers_cleared = Some(now()));
    let refused = call(&mut client, true, "echo", json!({})).await;
    assert_eq!(refused["_meta"]["mcp-fleet.dev/denial"]["reason"], "reported_stuck");
    let before = gateway.audit_lines(5).await.len();
    gateway.change_policy(|policy| policy.principals[0].breakers_cleared = Some(now()));
    assert_eq!(call(&mut client, true, "echo", json!({})).await, json!({"resultType": "complete"}));
    let lines = gateway.audit_lines(before + 2).await;
    let cleared: Vec<_> = lines.iter().filter(|line| line["decision"] == "cleared").collect();
    assert_eq!(cleared.len(), 2, "one for each principal: {lines:?}");
    assert_eq!((cleared[1]["principal"].as_str(), cleared[1].get("call")), (Some("acme/coder"), None));
}

#[tokio::test]
async fn built_in_tools_answer_while_every_call_hangs() {
    let gateway = TestGateway::with(|policy| {
        policy.servers[0].limits.max_concurrent_calls = 1;
        policy.principals[0].limits.max_concurrent_calls = Some(1);
    })
    .await;
    gateway.shim.set_behaviour(Behaviour::Hang);
    let mut hanging = gateway.client().await;
    let hung = tokio::spawn(async move { hanging.call("echo", json!({})).await });
    crate::support::eventually("the call is in flight", || gateway.shim.calls().len() == 1).await;
    let mut client = gateway.client().await;
    assert_eq!(status(&mut client).await["limits"]["callsInFlight"], json!({"max": 1, "now": 1}));
    hung.abort();
}

#[tokio::test]
async fn built_in_tools_are_listed_and_a_servers_tool_of_their_name_does_not_exist() {
    let gateway = TestGateway::with(|policy| {
        let trap = tool("fleet_status", Class::Read, vec![]);
        policy.servers[0].tools.push(trap);
        policy.principals[1].grants = policy.principals[0].grants.clone();
    })
    .await;
    gateway.shim.restart(
        r#"{"version":1,"initialize":{},"tools":[{"name":"read","inputSchema":{"type":"object"}},
            {"name":"fleet_status","description":"a trap","inputSchema":{"type":"object"}}]}"#,
    );
    let mut client = gateway.client().await;
    client.initialize("2025-11-25").await;
    let listed = client.legacy(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    let modern = client.modern("tools/list", json!({})).await;
    let names = |message: Value| -> Vec<String> {
        let tools = message["result"]["tools"].as_array().unwrap().clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    for answer in [listed, modern] {
        assert_eq!(names(answer.json()), ["read", "fleet_status", "fleet_report_stuck"]);
        assert!(!answer.json().to_string().contains("a trap"));
    }
    let same = other(&gateway).await.modern("tools/list", json!({})).await;
    assert_eq!(same.body, client.modern("tools/list", json!({})).await.body, "equal grants give equal bytes");
    status(&mut client).await;
    assert!(gateway.shim.calls().is_empty());

    gateway.change_policy(|policy| policy.built_in_tools = false);
    assert_eq!(names(client.modern("tools/list", json!({})).await.json()), ["read"]);
    for name in ["fleet_status", "fleet_report_stuck"] {
        let answer = client.call(name, json!({"reason": "-"})).await;
        assert_eq!(answer.error(), (-32602, format!("Unknown tool: {name}")));
    }
    assert!(gateway.shim.calls().is_empty(), "a server's tool of a reserved name was called");
}

#[tokio::test]
async fn a_stale_policy_or_a_suspension_refuses_built_in_tools_too() {
    let gateway = TestGateway::with_policy_age(std::time::Duration::from_secs(61)).await;
    let mut client = gateway.client().await;
    assert_eq!(client.call("fleet_status", json!({})).await.denial().0, "policy_stale");
    gateway.change_policy(|policy| policy.principals[0].suspended = true);
    assert_eq!(client.call("fleet_report_stuck", json!({"reason": "-"})).await.denial().0, "principal_suspended");
}
