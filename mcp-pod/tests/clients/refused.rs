//! Refusals that the gateway gives from the headers alone, some of them while the body is still sent: what the official clients make
//! of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::support::{ProcessGateway, Token, call_until_limited};
use super::{LEGACY, MODERN, Running, STEP_TIMEOUT, start};

impl Running {
    async fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go on\n").await.unwrap();
    }

    /// Returns the error of the next step, which has to be this one. A call that succeeds has none.
    async fn error(&mut self, step: &str) -> String {
        let facts = self.step(step, STEP_TIMEOUT).await;
        facts["error"].as_str().unwrap_or_else(|| panic!("{facts}")).to_owned()
    }
}

/// Lets a client connect to a server that does not exist, which it has to give up.
async fn finds_no_server(gateway: &ProcessGateway, client: &str, more: &[(&str, &str)]) {
    let url = format!("https://localhost:{}/nothing/mcp", gateway.address.port());
    let mut running = Running::start(gateway, client, &[more, &[("MCP_URL", &url)]].concat());
    let ended = tokio::time::timeout(STEP_TIMEOUT, running.child.wait()).await;
    let ended = ended.unwrap_or_else(|_| panic!("{client} {more:?} waits for a server that does not exist")).unwrap();
    assert!(!ended.success(), "{client} {more:?} found a server that does not exist");
}

/// Lets a client go through the scenario. `reads_again`: it has a place where a token can be read again.
async fn refused(client: &str, more: &[(&str, &str)], reads_again: bool) {
    let (gateway, _server) = start().await;
    finds_no_server(&gateway, client, more).await;
    let expired = gateway.pki.token(Token { issued: -100, expires: -60, ..Token::default() });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, &expired).unwrap();
    let file_name = file.to_string_lossy().into_owned();
    let more = [more, &[("MCP_REFUSALS", "1"), ("MCP_EXPIRED", &expired), ("MCP_TOKEN_FILE", &file_name)]].concat();
    let mut running = Running::start(&gateway, client, &more);
    let after = (false, r#"{"text": "after"}"#.to_owned());

    assert!(running.error("too-large").await.contains("request_too_large"));
    assert_eq!(running.result("after-too-large").await, after);

    running.step("ready", STEP_TIMEOUT).await;
    let (address, pki) = (gateway.address, gateway.pki.clone());
    let floods = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&floods);
    let flood = tokio::spawn(async move {
        while goes_on.load(Ordering::Relaxed) {
            call_until_limited((address, &pki), 1).await;
        }
    });
    running.go_on().await;
    let error = running.error("flooded").await;
    assert!(["rate_limited", "429", "Too Many Requests"].iter().any(|text| error.contains(text)), "{error}");
    // Not in the middle: what has been sent would still be refused, in the place of the client's calls.
    floods.store(false, Ordering::Relaxed);
    flood.await.unwrap();
    // The flood has used up what the principal may do at once. 100 requests are allowed again each second, far more than the client
    // makes from now on, however fast it is.
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.go_on().await;
    assert_eq!(running.result("after-flooded").await, after);

    let error = running.error("expired").await;
    let texts = ["token_expired", "401", "Unauthorized", "Server returned an error response"];
    assert!(texts.iter().any(|text| error.contains(text)), "{error}");
    if reads_again {
        running.step("token-read", STEP_TIMEOUT).await;
        std::fs::write(&file, gateway.pki.token(Token::default())).unwrap();
        running.go_on().await;
        assert_eq!(running.result("read-again").await, after);
        assert!(gateway.audit.count("token_expired") > 0, "the first token was not refused");
    }
}

#[tokio::test]
async fn python_1_survives_refusals() {
    refused("PYTHON_1", &[], true).await;
}

#[tokio::test]
async fn python_2_survives_refusals() {
    refused("PYTHON_2", &[LEGACY], true).await;
    refused("PYTHON_2", &[MODERN], true).await;
}

#[tokio::test]
async fn typescript_1_survives_refusals() {
    refused("NODE", &[("MCP_SDK", "1")], true).await;
}

#[tokio::test]
async fn typescript_2_survives_refusals() {
    refused("NODE", &[("MCP_SDK", "2"), LEGACY], true).await;
    refused("NODE", &[("MCP_SDK", "2"), MODERN], true).await;
}

#[tokio::test]
async fn go_survives_refusals() {
    refused("GO", &[LEGACY], true).await;
    refused("GO", &[MODERN], true).await;
}

#[tokio::test]
async fn rust_survives_refusals() {
    refused("RUST", &[LEGACY], false).await;
    refused("RUST", &[MODERN], false).await;
}
