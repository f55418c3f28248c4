//! Requests that browsers send for web pages: only pages of allowed origins get and read an answer.

use http::{HeaderMap, Method};
use serde_json::json;

use crate::support::{Answer, Client, TestGateway, modern};

const APP: &str = "https://app.example.com";

async fn gateway() -> TestGateway {
    TestGateway::with(|policy| policy.allowed_origins = vec![APP.into(), "http://localhost:3000".into()]).await
}

async fn preflight(client: &mut Client, path: &str, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,mcp-session-id"),
    ];
    client.send(Method::OPTIONS, path, &headers, "").await
}

async fn call(client: &mut Client, origins: &[&str]) -> Answer {
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.extend(origins.iter().map(|origin| ("origin", *origin)));
    client.send(Method::POST, "/files/mcp", &headers, body).await
}

fn allowed_origin(headers: &HeaderMap) -> Option<&str> {
    let allowed = headers.get("access-control-allow-origin")?.to_str().unwrap();
    assert_eq!(headers["vary"], "origin");
    assert!(headers["access-control-expose-headers"].to_str().unwrap().contains("mcp-session-id"));
    assert!(!headers.contains_key("access-control-allow-credentials"));
    Some(allowed)
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_ask_and_call() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let token = client.token.take();
    for origin in [APP, "http://localhost:3000"] {
        let answer = preflight(&mut client, "/files/mcp", origin).await;
        assert_eq!((answer.status.as_u16(), allowed_origin(&answer.headers)), (204, Some(origin)));
        assert_eq!(answer.headers["access-control-allow-methods"], "GET, POST");
        let allowed = answer.headers["access-control-allow-headers"].to_str().unwrap().to_owned();
        for header in ["authorization", "content-type", "mcp-protocol-version", "mcp-session-id", "last-event-id"] {
            assert!(allowed.split(", ").any(|one| one == header), "{header}");
        }
    }
    let refused = call(&mut client, &[APP]).await;
    assert_eq!((refused.status.as_u16(), allowed_origin(&refused.headers)), (401, Some(APP)), "the page learns why");
    client.token = token;
    let answer = call(&mut client, &[APP]).await;
    assert_eq!(allowed_origin(&answer.headers), Some(APP));
    assert_eq!(answer.json()["result"]["content"][0]["text"], "done");
    let lines = gateway.audit_lines(2).await;
    assert_eq!((lines[0]["reason"].as_str(), lines[1]["decision"].as_str()), (Some("token_missing"), Some("allowed")));
}

#[tokio::test]
async fn no_other_page_gets_or_reads_an_answer() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for origins in [
        vec!["https://evil.example"],
        vec!["null"],
        vec!["https://app.example.com.evil.example"],
        vec!["https://app.example.com:8443"],
        vec!["http://app.example.com"],
        vec!["https://APP.example.com"],
        vec!["https://app.example.com/"],
        vec![""],
        vec![APP, "https://evil.example"],
        vec!["https://evil.example", APP],
    ] {
        let answer = call(&mut client, &origins).await;
        assert_eq!((answer.status.as_u16(), allowed_origin(&answer.headers)), (403, None), "{origins:?}");
        let asked = preflight(&mut client, "/files/mcp", origins[0]).await;
        if origins[0] != APP {
            assert_eq!((asked.status.as_u16(), allowed_origin(&asked.headers)), (405, None), "{origins:?}");
        }
    }
    assert!(gateway.shim.calls().is_empty());
    assert_eq!(preflight(&mut client, "/files", APP).await.status, 404);
    // Without a request method, it is no question of a browser.
    assert_eq!(client.send(Method::OPTIONS, "/files/mcp", &[("origin", APP)], "").await.status, 405);
}

#[tokio::test]
async fn no_page_is_allowed_unless_the_policy_says_so() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    assert_eq!(preflight(&mut client, "/files/mcp", APP).await.status, 405);
    assert_eq!(call(&mut client, &[APP]).await.status, 403);
    gateway.change_policy(|policy| policy.allowed_origins = vec![APP.into()]);
    assert_eq!(call(&mut client, &[APP]).await.status, 200);
    gateway.change_policy(|policy| policy.allowed_origins.clear());
    assert_eq!(call(&mut client, &[APP]).await.status, 403);
}
