//! What clients and other workloads may try with forwarded requests.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use mcp_fleet_policy::model::TenantPolicy;
use mcp_pod::tls::{Identity, client_config, peer_name};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{
    FakeHome, GATEWAY_URI, Misdeed, Pair, ProcessGateway, SERVER_URI, TestGateway, Token, eventually, modern, now,
    refusal, tls, until,
};

fn unlimited(policy: &mut TenantPolicy) {
    policy.principals[0].limits.calls_per_minute = None;
    policy.principals[0].limits.max_concurrent_calls = None;
}

/// Returns the head and the body of a call, as raw as it is sent. `headers` end with line ends.
fn raw_call(token: &str, headers: &str) -> (String, String) {
    let (body, fields) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    let mut head = format!(
        "POST /files/mcp HTTP/1.1\r\nhost: gateway.acme-mcp.svc\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nconnection: close\r\n"
    );
    for (name, value) in &fields {
        head.extend([name, ": ", value, "\r\n"]);
    }
    (head + headers + "\r\n", body)
}

/// Reads until the other end closes the connection.
async fn read_all(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    // There may be no TLS alert at the end.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Connects to the port for forwarded requests with a client certificate.
async fn connect(address: SocketAddr, identity: &Arc<Identity>) -> std::io::Result<TlsStream<TcpStream>> {
    let config = client_config(Arc::clone(identity), GATEWAY_URI).unwrap();
    TlsConnector::from(config).connect(peer_name(), TcpStream::connect(address).await?).await
}

/// Sends text, and returns the answer; none if there is none.
async fn ask(stream: std::io::Result<TlsStream<TcpStream>>, text: &str) -> Option<String> {
    let mut stream = stream.ok()?;
    stream.write_all(text.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    Some(read_all(&mut stream).await).filter(|answer| !answer.is_empty())
}

/// Makes this the address of the home, and calls through the edge until it has got a request or a connection.
async fn call_until_it_reaches(pair: &Pair, fake: &FakeHome) -> (u16, Value) {
    pair.edge.operator.peers.lock().insert(pair.home.pod_uid.clone(), fake.address);
    let mut client = pair.edge.client(Token::default()).await;
    loop {
        let answer = client.call("echo", json!({})).await;
        if fake.connections() > 0 {
            return (answer.status.as_u16(), refusal(&answer));
        }
    }
}

#[tokio::test]
async fn a_client_cannot_pretend_to_be_a_gateway() {
    let gateway = TestGateway::new().await;
    let mut client = gateway.client().await;
    let (body, headers) = modern("tools/call", json!({"name": "echo", "arguments": {}}));
    for version in ["1", "9"] {
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.extend([("mcp-fleet-forwarded", version), ("mcp-fleet-client", "10.0.0.1")]);
        let answer = client.send(Method::POST, "/files/mcp", &headers, body.clone()).await;
        assert_eq!(answer.json()["result"]["content"][0]["text"], "done");
    }
    client.token = Some("garbage".to_owned());
    let mut statuses = Vec::new();
    // Each address has an allowance of failures. These all come from one.
    while statuses.last() != Some(&429) {
        let number = statuses.len();
        assert!(number < 50_000, "each failure counted for another address");
        let address = format!("10.{}.{}.1", number / 250, number % 250);
        let headers = [("mcp-fleet-forwarded", "1"), ("mcp-fleet-client", &*address)];
        statuses.push(client.send(Method::POST, "/files/mcp", &headers, "{}").await.status.as_u16());
    }
    assert!(statuses.iter().rev().skip(1).all(|status| *status == 401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_gateways_of_the_tenant_are_heard_by_a_gateway() {
    let Pair { home: gateway, edge: _edge } = Pair::start(unlimited).await;
    let pki = &gateway.pki;
    let (head, body) =
        raw_call(&pki.token(Token::default()), "mcp-fleet-forwarded: 1\r\nmcp-fleet-client: 10.0.0.1\r\n");
    let head = head.strip_suffix("\r\n").unwrap();
    let call = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let answer = ask(connect(gateway.peer_address, &pki.gateway).await, &call).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for (who, identity) in [
        ("the certificate of a shim", Arc::clone(&pki.shim)),
        ("the name of a shim", pki.identity(SERVER_URI)),
        ("the gateway of another tenant", pki.identity("spiffe://mcp-fleet.dev/tenant/t-2/gateway")),
    ] {
        assert_eq!(ask(connect(gateway.peer_address, &identity).await, &call).await, None, "{who}");
    }
    let without = tls(gateway.peer_address, pki).await;
    assert_eq!(ask(Ok(without), &call).await, None, "no certificate");
    assert_eq!(gateway.shim.calls().len(), 1);
    // A gateway of another version, or something else with the same certificate.
    for headers in ["", "mcp-fleet-forwarded: 2\r\nmcp-fleet-client: 10.0.0.1\r\n", "mcp-fleet-forwarded: 1\r\n"] {
        let (head, body) = raw_call(&pki.token(Token::default()), headers);
        let head = head.strip_suffix("\r\n").unwrap();
        let call = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        let answer = ask(connect(gateway.peer_address, &pki.gateway).await, &call).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    }
    // The token is checked again.
    let garbage = call.replace("Bearer ", "Bearer x");
    let answer = ask(connect(gateway.peer_address, &pki.gateway).await, &garbage).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(gateway.shim.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_forwarded_once_at_most() {
    let pair = Pair::start(unlimited).await;
    let (head, body) =
        raw_call(&pair.edge.pki.token(Token::default()), "mcp-fleet-forwarded: 1\r\nmcp-fleet-client: 10.0.0.1\r\n");
    let head = head.strip_suffix("\r\n").unwrap();
    let call = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let answered = pair.forwarded("answered").await;
    // The gateway at the other end has another view: it takes the edge for the home.
    let answer = ask(connect(pair.edge.peer_address, &pair.edge.pki.gateway).await, &call).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421") && answer.contains("mcp-fleet-not-home: 1"), "{answer}");
    assert_eq!(pair.forwarded("answered").await, answered);
    assert!(pair.edge.shim.calls().is_empty());
    // As an edge, it turns that into a refusal. Here the two gateways send it to each other.
    pair.edge.operator.peers.lock().insert(pair.home.pod_uid.clone(), pair.edge.peer_address);
    let mut client = pair.edge.client(Token::default()).await;
    until("the edge forwards to itself", async || {
        let answer = client.call("echo", json!({})).await.json();
        answer["result"]["_meta"]["mcp-fleet.dev/denial"]["reason"] == "home_undecided"
    })
    .await;
    // It has asked again, four times a second for five seconds.
    assert!((2..=21).contains(&pair.forwarded("not_home").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_does_not_know_yet_that_it_is_the_home_is_asked_again() {
    let pair = Pair::start(unlimited).await;
    let fake = FakeHome::start(&pair.edge.pki.gateway, Misdeed::HesitateOnce).await;
    pair.edge.operator.peers.lock().insert(pair.home.pod_uid.clone(), fake.address);
    let mut client = pair.edge.client(Token::default()).await;
    until("the fake home answers", async || client.call("echo", json!({})).await.body == "{}").await;
    assert_eq!((fake.requests(), pair.forwarded("not_home").await), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_never_answers_is_given_up_before_it_has_the_body() {
    let pair = Pair::start(unlimited).await;
    let fake = FakeHome::start(&pair.edge.pki.gateway, Misdeed::Silence).await;
    assert_eq!(call_until_it_reaches(&pair, &fake).await, (200, json!("home_undecided")));
    assert_eq!((fake.requests(), fake.unasked(), pair.forwarded("unreachable").await), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_body_was_sent_is_never_sent_again() {
    let pair = Pair::start(unlimited).await;
    let fake = FakeHome::start(&pair.edge.pki.gateway, Misdeed::Break).await;
    assert_eq!(call_until_it_reaches(&pair, &fake).await, (502, json!("home_lost")));
    assert_eq!((fake.requests(), pair.forwarded("lost").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_on_a_connection_that_was_used_before_is_not_sent_again_either() {
    let pair = Pair::start(unlimited).await;
    let fake = FakeHome::start(&pair.edge.pki.gateway, Misdeed::BreakSecond).await;
    pair.edge.operator.peers.lock().insert(pair.home.pod_uid.clone(), fake.address);
    let mut client = pair.edge.client(Token::default()).await;
    until("the fake home answers", async || client.call("echo", json!({})).await.body == "{}").await;
    // The client stays on its thread, and so does the connection to the home.
    let answer = client.call("echo", json!({})).await;
    assert_eq!((answer.status.as_u16(), refusal(&answer)), (502, json!("home_lost")));
    assert_eq!((fake.requests(), fake.connections(), pair.forwarded("lost").await), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_at_the_address_of_a_gateway_gets_no_token() {
    let pair = Pair::start(unlimited).await;
    let fake = FakeHome::start(&pair.edge.pki.shim, Misdeed::Break).await;
    assert_eq!(call_until_it_reaches(&pair, &fake).await, (200, json!("home_undecided")));
    assert_eq!(fake.requests(), 0);
}

/// How the end of a body is known.
#[derive(Clone, Copy)]
enum Framing {
    Chunked,
    Declared,
}

impl Framing {
    fn header(self, body: &str) -> String {
        match self {
            Self::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
            Self::Declared => format!("content-length: {}\r\n", body.len()),
        }
    }

    fn chunk(self, data: &str) -> String {
        match self {
            Self::Chunked => format!("{:x}\r\n{data}\r\n", data.len()),
            Self::Declared => data.to_owned(),
        }
    }

    const fn end(self) -> &'static str {
        match self {
            Self::Chunked => "0\r\n\r\n",
            Self::Declared => "",
        }
    }
}

/// A call that is complete but for its last byte.
struct HeldBack {
    stream: TlsStream<TcpStream>,
    framing: Framing,
    last: String,
}

impl HeldBack {
    /// Sends a call through the edge, and waits until the home has asked for its body.
    async fn send(pair: &Pair, token: Token) -> Self {
        Self::send_to(&pair.edge, token, Framing::Chunked).await
    }

    /// Sends a call to a gateway, and waits until the home has asked for its body.
    async fn send_to(gateway: &ProcessGateway, token: Token, framing: Framing) -> Self {
        let token = gateway.pki.token(token);
        let (_, body) = raw_call(&token, "");
        let (head, _) = raw_call(&token, &format!("expect: 100-continue\r\n{}", framing.header(&body)));
        let (most, last) = body.split_at(body.len() - 1);
        let mut stream = tls(gateway.address, &gateway.pki).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // The home has authenticated the caller, and asks for the body.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(framing.chunk(most).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        Self { stream, framing, last: last.to_owned() }
    }

    /// Sends the last byte. Returns the answer.
    async fn release(mut self) -> String {
        let rest = self.framing.chunk(&self.last) + self.framing.end();
        self.stream.write_all(rest.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        read_all(&mut self.stream).await
    }
}

/// Changes the policy, and waits until the home has it.
async fn change_policy(pair: &Pair, change: impl FnOnce(&mut TenantPolicy)) {
    let series = "mcp_fleet_policy_generation{tenant=\"acme\"}";
    let before = pair.home.metric(series).await;
    pair.edge.operator.change_policy(change);
    until("the home has the policy", async || pair.home.metric(series).await > before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forbidden_while_a_body_arrives_is_refused_through_the_edge() {
    let pair = Pair::start(unlimited).await;
    let allowed = HeldBack::send(&pair, Token::default()).await;
    assert!(allowed.release().await.contains("done"));
    let short = HeldBack::send(&pair, Token { expires: 2, ..Token::default() }).await;
    let expired = now() + 3;
    until("the token has expired", async || now() >= expired).await;
    let held = HeldBack::send(&pair, Token::default()).await;
    change_policy(&pair, |policy| policy.principals[0].suspended = true).await;
    let suspended = held.release().await;
    change_policy(&pair, |policy| policy.principals[0].suspended = false).await;
    let held = HeldBack::send(&pair, Token::default()).await;
    change_policy(&pair, |policy| policy.principals[0].revoked_until = Some(now() - 1)).await;
    let revoked = held.release().await;
    change_policy(&pair, |policy| policy.principals[0].revoked_until = None).await;
    let held = HeldBack::send(&pair, Token::default()).await;
    pair.edge.operator.stop_calls();
    until("the home knows the stop", async || pair.home.metric("mcp_fleet_kill_switch").await > 0.0).await;
    let stopped = held.release().await;
    for (answer, reason) in [
        (short.release().await, "token_expired"),
        (suspended, "principal_suspended"),
        (revoked, "token_revoked"),
        (stopped, "fleet_stopped"),
    ] {
        assert!(answer.contains(reason), "{reason}: {answer}");
    }
    assert_eq!(pair.home.shim.calls().len(), 1);
    assert!(Pair::reasons(&pair.edge).is_empty(), "only the home audits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_home_moves_while_its_body_arrives_reaches_the_next_home() {
    let pair = Pair::start(unlimited).await;
    let at_home = HeldBack::send_to(&pair.home, Token::default(), Framing::Chunked).await;
    let at_edge = HeldBack::send_to(&pair.edge, Token::default(), Framing::Declared).await;
    // The edge does not keep a body whose length it does not know.
    let not_kept = HeldBack::send_to(&pair.edge, Token::default(), Framing::Chunked).await;
    pair.home.signal(Signal::TERM);
    let mut client = pair.edge.client(Token::default()).await;
    until("the edge is the home", async || {
        assert!(refusal(&client.call("echo", json!({"text": "probe"})).await).is_null());
        pair.edge.audit.count("\"echo\"") > 0
    })
    .await;
    let (made, audited) = (pair.home.shim.calls().len(), pair.edge.audit.count("\"echo\""));
    for held in [at_home, at_edge] {
        let answer = held.release().await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("done"), "{answer}");
    }
    let refused = not_kept.release().await;
    assert!(refused.contains("home_undecided"), "{refused}");
    assert_eq!(pair.home.shim.calls().len(), made + 2);
    eventually("the edge has audited both", || pair.edge.audit.count("\"echo\"") >= audited + 2).await;
    eventually("the home audits what it refused", || Pair::reasons(&pair.home) == ["home_undecided"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_ends_is_given_up_by_the_home() {
    let pair = Pair::start(unlimited).await;
    let token = pair.edge.pki.token(Token::default());
    let (head, body) = raw_call(&token, "transfer-encoding: chunked\r\n");
    let mut stream = tls(pair.edge.address, &pair.edge.pki).await;
    stream.write_all(format!("{head}{:x}\r\n{body}\r\n", body.len()).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(pair.home.shim.calls().is_empty());
    assert!(Pair::reasons(&pair.home).contains(&"request_invalid".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let pair = Pair::start(unlimited).await;
    let token = pair.edge.pki.token(Token::default());
    // The whole message, and no end of the body.
    let (head, body) = raw_call(&token, "transfer-encoding: chunked\r\n");
    let mut stream = tls(pair.edge.address, &pair.edge.pki).await;
    stream.write_all(format!("{head}{:x}\r\n{body}\r\n", body.len()).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    pair.has_forwarded("aborted", 1).await;
    eventually("the home audits it", || Pair::reasons(&pair.home) == ["request_invalid"]).await;
    assert!(Pair::reasons(&pair.edge).is_empty(), "the edge audits it as well");
    // Two lengths: whatever is believed, nothing is left over for the next request on the same connection.
    let (head, body) = raw_call(&token, "transfer-encoding: chunked\r\ncontent-length: 3\r\n");
    let smuggled = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\nPOST /files/mcp HTTP/1.1\r\nx: ", body.len());
    let mut stream = tls(pair.edge.address, &pair.edge.pki).await;
    stream.write_all(smuggled.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let first = read_all(&mut stream).await;
    assert!(first.matches("HTTP/1.1 ").count() <= 1, "{first}");
    let made = usize::from(first.starts_with("HTTP/1.1 200"));
    let mut client = pair.edge.client(Token::default()).await;
    assert_eq!(client.call("echo", json!({"text": "mine"})).await.status, 200);
    let calls = pair.home.shim.calls();
    assert_eq!((calls.len(), calls.last().unwrap().params["arguments"]["text"].as_str()), (made + 1, Some("mine")));
}
