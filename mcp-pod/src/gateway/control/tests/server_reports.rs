//! Tests of what passes between gateway and operator about the reports of tool servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_control::server_report::{MAX_COMPRESSED, MAX_REPORT, compress};
use mcp_fleet_control::wire::kept_server_reports::KeptDigest;
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Polls};
use mcp_fleet_policy::model::{Breaker, DefinitionDigest, Server, ServerLimits, TenantPolicy, Tool};
use mcp_fleet_policy::units::{Bytes as Size, Micros};
use parking_lot::Mutex;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::operator::{ControlStream, NAME, Operator, TEST_TIMEOUT};
use super::{eventually, policy, start, state};
use crate::gateway::budget::Leases;
use crate::gateway::control::intake::Intake;
use crate::gateway::control::server_reports::ServerReports;
use crate::gateway::state::State;
use crate::gateway::upstream::Upstream;

const FILES: &str = "files-uid";

/// Returns a report whose server has this name.
fn report(name: &str) -> String {
    format!(
        r#"{{"version":1,"initialize":{{"serverInfo":{{"name":"{name}","version":"1"}},"instructions":"a\u202eb"}},"tools":[]}}"#
    )
}

fn digest(text: &str) -> Vec<u8> {
    blake3::hash(text.as_bytes()).as_bytes().to_vec()
}

/// Returns a policy with a server at this address.
fn with_server(generation: u64, address: Option<SocketAddr>) -> TenantPolicy {
    let server = Server {
        name: "files".into(),
        uid: FILES.into(),
        addresses: address.into_iter().collect(),
        identity: "spiffe://mcp-fleet.dev/tenant/0b0e/server/files-uid".into(),
        tools: vec![],
        limits: ServerLimits {
            timeout: TEST_TIMEOUT,
            max_request: Size::new(1024),
            max_response: Size::new(1024),
            max_concurrent_calls: 1,
        },
        breaker: Breaker::DEFAULT,
        loops: LoopSettings::DEFAULT,
    };
    TenantPolicy { servers: vec![server], ..policy(generation) }
}

/// Starts a shim without TLS that gives the report in the mutex. Returns its address.
async fn shim(report: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut starts = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = report.lock().clone();
            // Each report is that of another start, so that the gateway asks again.
            starts += 1;
            let head = format!("mcp-fleet-epoch: {starts}\r\ncontent-length: {}\r\nconnection: close", body.len());
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes()).await;
        }
    });
    address
}

fn upstream(state: &State) -> Arc<Upstream> {
    Arc::clone(state.active_policy().unwrap().upstream_of(FILES).unwrap())
}

/// Returns `serverInfo` of the server, as clients see it; empty if nothing is known.
async fn info(state: &State) -> String {
    let report = upstream(state).report().await.ok();
    String::from_utf8(report.and_then(|report| report.about.server_info.clone()).unwrap_or_default()).unwrap()
}

fn named(name: &str) -> String {
    format!(r#"{{"name":"{name}","version":"1"}}"#)
}

fn kept(entries: &[(&str, &str)]) -> wire::KeptServerReports {
    let digest_of = |(uid, text): &(&str, &str)| KeptDigest { server_uid: (*uid).into(), digest: digest(text) };
    wire::KeptServerReports { kept: entries.iter().map(digest_of).collect() }
}

async fn tell(stream: &ControlStream, entries: &[(&str, &str)]) {
    stream.send(from_operator::Message::KeptServerReports(kept(entries))).await;
}

async fn give(stream: &ControlStream, server_uid: &str, digest: Vec<u8>, report: Vec<u8>) {
    let server_uid = server_uid.to_owned();
    let kept = wire::KeptServerReport { server_uid, digest, report };
    stream.send(from_operator::Message::KeptServerReport(kept)).await;
}

#[tokio::test]
async fn a_report_is_sent_only_to_an_operator_that_keeps_reports_and_only_until_it_keeps_it() {
    let text = Arc::new(Mutex::new(report("one")));
    let address = shim(Arc::clone(&text)).await;
    let state = state(Leases::new(TEST_TIMEOUT));
    state.install(with_server(1, Some(address))).unwrap();
    let intake = Intake::new(Arc::clone(&state));
    assert_eq!(info(&state).await, named("one"));
    let (mut stream, now) = (ServerReports::default(), Instant::now());
    assert_eq!(stream.messages(&intake, now), [], "this operator may keep none");
    stream.learn(kept(&[]));
    let mut messages = stream.messages(&intake, now);
    let Some(from_gateway::Message::SeenServerReport(seen)) = messages.pop() else { panic!("{messages:?}") };
    assert_eq!((seen.server_uid.as_str(), seen.digest), (FILES, digest(&report("one"))));
    assert_eq!(seen.report, compress(report("one").as_bytes()).unwrap());
    let minute = Duration::from_mins(1);
    assert_eq!(stream.messages(&intake, now + minute / 2), [], "one a minute");
    assert_eq!(stream.messages(&intake, now + minute).len(), 1, "it was not acknowledged");
    stream.learn(kept(&[(FILES, &report("one"))]));
    assert_eq!(stream.messages(&intake, now + 2 * minute), []);
    // The next leader keeps another one.
    let mut stream = ServerReports::default();
    stream.learn(kept(&[(FILES, &report("one"))]));
    assert_eq!(stream.messages(&intake, now + 3 * minute), [], "the same is not sent again");
}

#[tokio::test]
async fn a_kept_report_is_used_until_the_server_gives_one() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    assert_eq!(stream.push(&with_server(1, None)).await.error, "");
    tell(&stream, &[(FILES, &report("kept")), ("uid-of-another-server", &report("other"))]).await;
    let from_gateway::Message::WantedServerReports(wanted) = stream.next().await else { panic!("it has no report") };
    assert_eq!(wanted.server_uids, [FILES]);
    assert_eq!(info(&gateway.state).await, "");
    let text = report("kept");
    give(&stream, FILES, digest(&text), compress(text.as_bytes()).unwrap()).await;
    eventually("the kept report is used", || !upstream(&gateway.state).lacks_report()).await;
    assert_eq!(info(&gateway.state).await, named("kept"));
    let about = upstream(&gateway.state).report().await.unwrap();
    let shown = "\"a\u{fffd}b\"";
    assert_eq!(about.about.instructions.as_deref(), Some(shown.as_bytes()), "it is made safe to show");
    assert_eq!(upstream(&gateway.state).is_up(), Some(false));
    // The server comes up and says something else, and the operator repeats what it kept.
    let address = shim(Arc::new(Mutex::new(report("live")))).await;
    assert_eq!(stream.push(&with_server(2, Some(address))).await.error, "");
    eventually_info(&gateway.state, "live").await;
    let from_gateway::Message::SeenServerReport(seen) = stream.next().await else { panic!("it has another report") };
    assert_eq!(seen.digest, digest(&report("live")));
    gateway.state.use_kept_report(FILES, &digest(&text), &compress(text.as_bytes()).unwrap()).unwrap();
    give(&stream, FILES, digest(&text), compress(text.as_bytes()).unwrap()).await;
    assert_eq!(stream.push(&with_server(3, None)).await.error, "");
    assert_eq!(info(&gateway.state).await, named("live"));
}

/// Waits until the server has this name.
async fn eventually_info(state: &State, name: &str) {
    let started = Instant::now();
    while info(state).await != named(name) {
        assert!(started.elapsed() < TEST_TIMEOUT, "the server is not {name}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_kept_report_that_is_not_what_it_should_be_is_ignored() {
    let state = state(Leases::new(TEST_TIMEOUT));
    state.install(with_server(1, None)).unwrap();
    let good = report("good");
    let use_kept = |uid: &str, digest: &[u8], compressed: &[u8]| state.use_kept_report(uid, digest, compressed);
    let compressed = compress(good.as_bytes()).unwrap();
    use_kept("uid-of-a-deleted-server", &digest(&good), &compressed).unwrap();
    let own = |text: &str| use_kept(FILES, &digest(text), &compress(text.as_bytes()).unwrap()).unwrap_err().to_string();
    let large = " ".repeat(MAX_REPORT + 1);
    for (text, expected) in [
        ("not a report", "failed to parse a kept report"),
        (r#"{"version":2,"initialize":{},"tools":[]}"#, "failed to parse a kept report"),
        (r#"{"version":1,"initialize":{},"tools":[],"more":1}"#, "failed to parse a kept report"),
        (&large, "failed to read a kept report: it has more than 4194304 bytes"),
    ] {
        assert_eq!(own(text), expected);
    }
    use_kept(FILES, &digest("another"), &compressed).unwrap_err();
    use_kept(FILES, &[], &compressed).unwrap_err();
    use_kept(FILES, &digest(&good), good.as_bytes()).unwrap_err();
    use_kept(FILES, &digest(&good), &vec![0; MAX_COMPRESSED + 1]).unwrap_err();
    assert!(upstream(&state).lacks_report());
    use_kept(FILES, &digest(&good), &compressed).unwrap();
    assert_eq!(info(&state).await, named("good"));
}

/// Returns a report with one tool that has this description.
fn described(description: &str) -> String {
    format!(r#"{{"version":1,"initialize":{{}},"tools":[{}]}}"#, definition(description))
}

/// Members are sorted by name.
fn definition(description: &str) -> String {
    format!(r#"{{"description":"{description}","name":"read"}}"#)
}

/// Returns a policy with a server at this address, whose catalogue names the definition with this description.
fn with_definition(generation: u64, address: Option<SocketAddr>, description: &str) -> TenantPolicy {
    let mut policy = with_server(generation, address);
    policy.servers[0].tools = vec![Tool {
        alias: None,
        name: "read".into(),
        class: Class::Read,
        arguments: Arc::new([]),
        price: Micros::ZERO,
        result_price: None,
        polls: Polls::Limited,
        shown: None,
        definition: Some(DefinitionDigest(sha2::Sha256::digest(definition(description)).into())),
    }];
    policy
}

#[tokio::test]
async fn the_operator_keeps_the_report_with_the_named_definition_for_gateways_that_start_later() {
    let address = shim(Arc::new(Mutex::new(described("changed")))).await;
    let state = state(Leases::new(TEST_TIMEOUT));
    state.install(with_definition(1, Some(address), "named")).unwrap();
    let intake = Intake::new(Arc::clone(&state));
    upstream(&state).report().await.unwrap();
    let (mut stream, now) = (ServerReports::default(), Instant::now());
    stream.learn(kept(&[(FILES, &described("named"))]));
    let messages = stream.messages(&intake, now);
    let [from_gateway::Message::WantedServerReports(wanted)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(wanted.server_uids, [FILES], "and nothing is sent that has another definition");
    assert_eq!(stream.messages(&intake, now + Duration::from_mins(10)), [], "nor later");
    let text = described("named");
    state.use_kept_report(FILES, &digest(&text), &compress(text.as_bytes()).unwrap()).unwrap();
    assert!(!upstream(&state).lacks_report());
    upstream(&state).report().await.unwrap();
    assert!(!upstream(&state).lacks_report(), "also after the server was asked again");
    // The new definition is accepted.
    state.install(with_definition(2, Some(address), "changed")).unwrap();
    let started = Instant::now();
    let messages = loop {
        assert!(started.elapsed() < TEST_TIMEOUT, "the server is not asked again");
        upstream(&state).report().await.unwrap();
        let messages = stream.messages(&intake, now + Duration::from_mins(10));
        if !messages.is_empty() {
            break messages;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let [from_gateway::Message::SeenServerReport(seen)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(seen.digest, digest(&described("changed")));
}

/// Returns whether a report is sent to an operator that keeps none.
fn is_sent(intake: &Intake) -> bool {
    let mut stream = ServerReports::default();
    stream.learn(kept(&[]));
    !stream.messages(intake, Instant::now()).is_empty()
}

#[tokio::test]
async fn a_report_that_was_read_before_a_definition_was_named_is_not_sent_after_it() {
    let address = shim(Arc::new(Mutex::new(described("changed")))).await;
    for (description, sent) in [("changed", true), ("named", false)] {
        let state = state(Leases::new(TEST_TIMEOUT));
        state.install(with_server(1, Some(address))).unwrap();
        let intake = Intake::new(Arc::clone(&state));
        upstream(&state).report().await.unwrap();
        state.install(with_definition(2, Some(address), description)).unwrap();
        assert!(!is_sent(&intake), "it is read again first");
        let Some(epoch) = upstream(&state).report().await.ok().map(|report| report.epoch) else { panic!() };
        let started = Instant::now();
        while upstream(&state).report().await.unwrap().epoch == epoch {
            assert!(started.elapsed() < 2 * TEST_TIMEOUT, "the server is not asked again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(is_sent(&intake), sent, "{description}");
    }
}

#[tokio::test]
async fn a_report_without_a_tool_whose_definition_is_named_is_not_sent() {
    let address = shim(Arc::new(Mutex::new(report("without tools")))).await;
    let state = state(Leases::new(TEST_TIMEOUT));
    state.install(with_definition(1, Some(address), "named")).unwrap();
    let intake = Intake::new(Arc::clone(&state));
    upstream(&state).report().await.unwrap();
    assert!(upstream(&state).lacks_report() && !is_sent(&intake));
}

#[tokio::test]
async fn long_instructions_are_cut() {
    let long =
        report("n").replace("a\\u202eb", &"é".repeat(10_000)).replace(r#""n""#, &format!("{:?}", "n".repeat(1000)));
    let address = shim(Arc::new(Mutex::new(long))).await;
    let state = state(Leases::new(TEST_TIMEOUT));
    state.install(with_server(1, Some(address))).unwrap();
    let about = upstream(&state).report().await.unwrap().about.clone();
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap()).unwrap();
    assert_eq!(text(about.instructions).chars().count(), 8192 + 2);
    assert_eq!(text(about.server_info), named(&format!("{}…", "n".repeat(127))));
}
