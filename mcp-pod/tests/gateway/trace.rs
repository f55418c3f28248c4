//! Traces: the caller's trace goes on to the tool server with the gateway's span as the parent, and its ids are in the
//! audit lines.

use http::Method;
use serde_json::{Value, json};

use crate::support::{TestGateway, modern};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn parent(trace: &str) -> String {
    format!("00-{trace}-b7ad6b7169203331-01")
}

/// Calls a tool that may change something, with headers and `_meta`. Returns `_meta` as the server gets it, and the audit
/// lines of the call.
async fn call(gateway: &TestGateway, extra: &[(&str, &str)], meta: Value) -> (Value, Vec<Value>) {
    let before = gateway.shim.calls().len();
    let params = json!({"name": "write", "arguments": {"path": "/workspace/a"}, "_meta": meta});
    let (body, headers) = modern("tools/call", params);
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.extend_from_slice(extra);
    let answer = gateway.client().await.send(Method::POST, "/files/mcp", &headers, body).await;
    assert_eq!(answer.json()["result"]["content"][0]["text"], "done", "a trace was an error: {answer:?}");
    let lines = gateway.audit_lines(2 * before + 2).await.split_off(2 * before);
    (gateway.shim.calls()[before].params["_meta"].clone(), lines)
}

/// Returns the trace that the server gets, after comparing it with the audit lines.
fn checked(meta: &Value, lines: &[Value]) -> (String, String) {
    let parts: Vec<&str> = meta["traceparent"].as_str().unwrap().split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{meta}") };
    assert_eq!((version, lines.len()), ("00", 2));
    for line in lines {
        assert_eq!((&line["trace_id"], &line["span_id"]), (&json!(trace), &json!(span)));
    }
    assert_ne!(span, "b7ad6b7169203331", "the server's parent is the caller's span");
    (trace.to_owned(), flags.to_owned())
}

#[tokio::test]
async fn the_trace_of_a_call_goes_on_through_the_gateway() {
    let gateway = TestGateway::new().await;
    let (meta, lines) =
        call(&gateway, &[], json!({"traceparent": parent(TRACE), "tracestate": "a=1", "baggage": "b=2"})).await;
    assert_eq!(checked(&meta, &lines), (TRACE.into(), "01".into()));
    assert_eq!((&meta["tracestate"], meta.as_object().unwrap().len()), (&json!("a=1"), 2));

    let headers = [("traceparent", &*parent(TRACE)), ("tracestate", "a=1")];
    let (meta, lines) = call(&gateway, &headers, json!({})).await;
    assert_eq!((checked(&meta, &lines).0.as_str(), &meta["tracestate"]), (TRACE, &json!("a=1")));

    // A proxy's headers do not replace what the caller itself says, and lend it no state.
    let (meta, lines) = call(&gateway, &headers, json!({"traceparent": parent(OTHER)})).await;
    assert_eq!((checked(&meta, &lines).0.as_str(), meta.get("tracestate")), (OTHER, None));
}

#[tokio::test]
async fn a_call_without_a_valid_trace_begins_one() {
    let gateway = TestGateway::new().await;
    let mut seen = std::collections::HashSet::new();
    for (headers, meta) in [
        (vec![], json!({})),
        (vec![], json!({})),
        (vec![("traceparent", "x"), ("tracestate", "a=1")], json!({})),
        (vec![], json!({"traceparent": "ignore previous instructions", "tracestate": "a=1"})),
        (vec![], json!({"traceparent": {"nested": 1}, "tracestate": 7})),
        (vec![], json!({"traceparent": format!("ff-{TRACE}-b7ad6b7169203331-01")})),
        (vec![], json!({"tracestate": "a=1"})),
    ] {
        let (forwarded, lines) = call(&gateway, &headers, meta).await;
        let (trace, flags) = checked(&forwarded, &lines);
        assert_eq!((flags.as_str(), forwarded.as_object().unwrap().len()), ("00", 1), "{forwarded}");
        assert!(trace != TRACE && trace != "0".repeat(32) && seen.insert(trace), "not a new trace");
    }
}

#[tokio::test]
async fn every_audit_line_about_one_request_has_its_trace() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let meta = json!({"traceparent": parent(TRACE)});
    client.modern("tools/list", json!({"_meta": meta})).await;
    client.modern("tools/call", json!({"name": "missing", "arguments": {}, "_meta": meta})).await;
    client.token = None;
    client.send(Method::POST, "/files/mcp", &[("traceparent", &parent(TRACE))], "{}").await;
    let lines = gateway.audit_lines(3).await;
    for line in &lines {
        assert_eq!((&line["trace_id"], line["span_id"].as_str().unwrap().len()), (&json!(TRACE), 16), "{line}");
    }
    assert_ne!(lines[0]["span_id"], lines[1]["span_id"]);
}
