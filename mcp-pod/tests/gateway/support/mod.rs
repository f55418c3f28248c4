//! The gateway under test and everything around it: PKI, policy, ledger, shim and clients.

mod client;
mod fake_home;
mod held;
mod ledger;
mod operator;
mod pair;
mod pipeline;
mod pki;
mod policy;
mod process;
mod shim;
mod tool_server;

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_policy::model::TenantPolicy;
use mcp_fleet_policy::units::Bytes as Size;
use mcp_pod::gateway::{Audit, Dialer, Memory, State, Workers, listen};
use mcp_pod::tls::{PublicNames, server_config_by_name};
use parking_lot::{Condvar, Mutex};
use prometheus::TextEncoder;
use serde_json::Value;
use tokio::net::TcpListener;

pub(crate) use client::{Answer, Client, modern, tls, tls_for, tls_from, tls_offering};
pub(crate) use fake_home::{FakeHome, Misdeed};
pub(crate) use held::{hold_calls, release_all};
pub(crate) use ledger::{Ledger, Spent};
pub(crate) use pair::{Pair, home_of, home_of_coder, refusal};
pub(crate) use pipeline::{call_until_limited, send_until_limited};
pub(crate) use pki::{GATEWAY_URI, Pki, SERVER_URI, Token, now};
pub(crate) use policy::{CODER, OTHER, argument, policy, tool};
pub(crate) use process::{FreeAddress, Options, ProcessGateway, get};
pub(crate) use shim::{Behaviour, Shim};
pub(crate) use tool_server::ToolServer;

/// How long a test waits for something that has to happen. Only a hang takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a call waits for its audit line: more than a busy machine needs to write it, and less than a test has.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory budget of gateways in tests that do not test it.
const MEMORY: Size = Size::new(1 << 30);

/// A running gateway with a fake shim and ledger, and the audit lines it wrote.
pub(crate) struct TestGateway {
    pub(crate) pki: Pki,
    pub(crate) state: Arc<State>,
    pub(crate) names: Arc<PublicNames>,
    pub(crate) shim: Shim,
    pub(crate) ledger: Ledger,
    pub(crate) address: SocketAddr,
    pub(crate) audit: AuditLog,
    policy: Mutex<TenantPolicy>,
}

/// The audit log of a gateway under test.
#[derive(Clone, Default)]
pub(crate) struct AuditLog(Arc<Mutex<Vec<u8>>>);

impl Write for AuditLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A sink whose writes block until it is opened.
#[derive(Clone, Default)]
pub(crate) struct BlockedSink(Arc<(Mutex<bool>, Condvar)>);

impl BlockedSink {
    /// Lets all writes pass from now on.
    pub(crate) fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }
}

impl Write for BlockedSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut open = self.0.0.lock();
        while !*open {
            self.0.1.wait(&mut open);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl TestGateway {
    /// Starts a gateway with the default policy, fresh.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a gateway with a changed default policy, fresh.
    pub(crate) async fn with(change: impl FnOnce(&mut TenantPolicy)) -> Self {
        let gateway = Self::without_policy().await;
        let mut policy = policy(&gateway.pki, gateway.shim.address);
        change(&mut policy);
        gateway.state.install(policy.clone()).unwrap();
        gateway.state.mark_fresh(policy.generation, Duration::ZERO);
        *gateway.policy.lock() = policy;
        gateway
    }

    /// Starts a gateway with the default policy, last proved current `age` ago.
    pub(crate) async fn with_policy_age(age: Duration) -> Self {
        let gateway = Self::without_policy().await;
        let policy = policy(&gateway.pki, gateway.shim.address);
        gateway.state.install(policy).unwrap();
        gateway.state.mark_fresh(1, age);
        gateway
    }

    /// Starts a gateway with the default policy, fresh, and this memory budget.
    pub(crate) async fn with_memory(budget: Size) -> Self {
        let audit = AuditLog::default();
        let gateway = Self::start(audit.clone(), audit, budget).await;
        gateway.change_policy(|_| {});
        gateway
    }

    /// Starts a gateway that has no policy yet.
    pub(crate) async fn without_policy() -> Self {
        let audit = AuditLog::default();
        Self::with_audit_sink(audit.clone(), audit).await
    }

    /// Starts a gateway that has no policy yet and writes its audit log to `sink`. The test reads it from `audit`.
    pub(crate) async fn with_audit_sink(sink: impl Write + Send + 'static, audit: AuditLog) -> Self {
        Self::start(sink, audit, MEMORY).await
    }

    async fn start(sink: impl Write + Send + 'static, audit: AuditLog, budget: Size) -> Self {
        let pki = Pki::new();
        let shim = Shim::start(&pki).await;
        let ledger = Ledger::start();
        let dialer = Dialer::Mutual(Arc::clone(&pki.gateway));
        let names = PublicNames::new(&pki.public_dir());
        let audit_writer = Audit::start(sink, AUDIT_TIMEOUT).unwrap();
        let state =
            State::new(Arc::clone(&ledger.leases), dialer, audit_writer, Memory::new(budget), Arc::clone(&names));
        let state = state.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = server_config_by_name(Arc::clone(&pki.gateway), Arc::clone(&names)).unwrap();
        tokio::spawn(listen(listener, tls, Workers::start().unwrap(), Arc::clone(&state)));
        let policy = Mutex::new(policy(&pki, shim.address));
        Self { pki, state, names, shim, ledger, address, audit, policy }
    }

    /// Has the gateway listen on a port of both families of addresses too, as it does in a pod.
    pub(crate) async fn listen_on_both(&self) -> u16 {
        let listener = mcp_fleet_admin::listen((Ipv6Addr::UNSPECIFIED, 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = server_config_by_name(Arc::clone(&self.pki.gateway), Arc::clone(&self.names)).unwrap();
        tokio::spawn(listen(listener, tls, Workers::start().unwrap(), Arc::clone(&self.state)));
        port
    }

    /// Changes the policy and installs it as the next generation.
    pub(crate) fn change_policy(&self, change: impl FnOnce(&mut TenantPolicy)) {
        let mut policy = self.policy.lock();
        change(&mut policy);
        policy.generation += 1;
        self.state.install(policy.clone()).unwrap();
        self.state.mark_fresh(policy.generation, Duration::ZERO);
    }

    /// Connects a client with a token of the default principal.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(&self.pki.token(Token::default())).await
    }

    /// Connects a client with the token.
    pub(crate) async fn client_with(&self, token: &str) -> Client {
        Client::connect(self.address, &self.pki, Some(token)).await
    }

    /// Returns the audit lines so far, once there are at least `count`.
    pub(crate) async fn audit_lines(&self, count: usize) -> Vec<Value> {
        let what = format!("there are {count} audit lines");
        eventually(&what, || self.audit_text().lines().count() >= count).await;
        let text = self.audit_text();
        assert!(text.lines().all(|line| line.len() <= 8192));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the text of the audit log.
    pub(crate) fn audit_text(&self) -> String {
        String::from_utf8(self.audit.0.lock().clone()).unwrap()
    }

    /// Returns the last audit line, once there are at least `count`.
    pub(crate) async fn audit_line(&self, count: usize) -> Value {
        self.audit_lines(count).await.pop().unwrap()
    }

    /// Returns all metrics in the text format.
    pub(crate) fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.state.registry().gather()).unwrap()
    }

    /// Returns the value of a metric, or zero if there is none. `labels` is the text between the braces, with labels
    /// sorted by name.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics();
        let start = format!("{name}{{{labels}}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0.0)
    }
}

/// Waits until `condition` is true. `what` describes it in the failure message.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, async || condition()).await;
}

/// Asks again and again until the answer is true. `what` describes it in the failure message.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
