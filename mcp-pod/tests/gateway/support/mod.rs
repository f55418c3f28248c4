//! What every test starts with.

mod client;
mod ledger;
mod pki;
mod policy;
mod shim;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::model::TenantPolicy;
use mcp_pod::gateway::audit::Audit;
use mcp_pod::gateway::state::State;
use mcp_pod::gateway::{Dialer, Workers, listen};
use mcp_pod::tls::server_config_plain;
use parking_lot::Mutex;
use prometheus::TextEncoder;
use serde_json::Value;
use tokio::net::TcpListener;

pub(crate) use client::{Client, modern, tls, tls_offering};
pub(crate) use ledger::{Ledger, Spent};
pub(crate) use pki::{GATEWAY_URI, Pki, Token, now};
pub(crate) use policy::{CODER, OTHER, policy, tool};
pub(crate) use shim::{Act, Shim};

/// A gateway, its shim, and what they wrote.
pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) state: Arc<State>,
    pub(crate) shim: Shim,
    pub(crate) ledger: Ledger,
    pub(crate) address: SocketAddr,
    pub(crate) audit: Lines,
    policy: Mutex<TenantPolicy>,
}

/// The audit trail of a test.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl World {
    /// The usual policy, fresh.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The usual policy with some change.
    pub(crate) async fn with(change: impl FnOnce(&mut TenantPolicy)) -> Self {
        let world = Self::without_policy().await;
        let mut policy = policy(&world.pki, world.shim.address);
        change(&mut policy);
        world.state.install(policy.clone()).unwrap();
        world.state.mark_fresh(policy.generation, Duration::ZERO);
        *world.policy.lock() = policy;
        world
    }

    /// The usual policy, last proved to be current that long ago.
    pub(crate) async fn aged(age: Duration) -> Self {
        let world = Self::without_policy().await;
        let policy = policy(&world.pki, world.shim.address);
        world.state.install(policy).unwrap();
        world.state.mark_fresh(1, age);
        world
    }

    /// A gateway that waits for its first policy.
    pub(crate) async fn without_policy() -> Self {
        let audit = Lines::default();
        Self::writing(audit.clone(), audit).await
    }

    /// A gateway whose audit trail goes to `sink`; `audit` is what the test reads.
    pub(crate) async fn writing(sink: impl Write + Send + 'static, audit: Lines) -> Self {
        let pki = Pki::new();
        let shim = Shim::start(&pki).await;
        let ledger = Ledger::start();
        let dialer = Dialer::Mutual(Arc::clone(&pki.gateway));
        let state = State::new(Arc::clone(&ledger.leases), dialer, Audit::start(sink).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = server_config_plain(Arc::clone(&pki.gateway)).unwrap();
        tokio::spawn(listen(listener, tls, Workers::start().unwrap(), Arc::clone(&state)));
        let policy = Mutex::new(policy(&pki, shim.address));
        Self { pki, state, shim, ledger, address, audit, policy }
    }

    /// Puts the next generation into force.
    pub(crate) fn change(&self, change: impl FnOnce(&mut TenantPolicy)) {
        let mut policy = self.policy.lock();
        change(&mut policy);
        policy.generation += 1;
        self.state.install(policy.clone()).unwrap();
        self.state.mark_fresh(policy.generation, Duration::ZERO);
    }

    /// A client with the usual principal's token.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(&self.pki.token(Token::default())).await
    }

    /// A client with that token.
    pub(crate) async fn client_with(&self, token: &str) -> Client {
        Client::connect(self.address, &self.pki, Some(token)).await
    }

    /// The audit lines so far, once there are at least `count`.
    pub(crate) async fn lines(&self, count: usize) -> Vec<Value> {
        for _ in 0..500 {
            let text = String::from_utf8(self.audit.0.lock().clone()).unwrap();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.len() >= count {
                assert!(text.lines().all(|line| line.len() <= 8192));
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("fewer than {count} audit lines: {}", String::from_utf8_lossy(&self.audit.0.lock()));
    }

    /// The last audit line of at least `count`.
    pub(crate) async fn line(&self, count: usize) -> Value {
        self.lines(count).await.pop().unwrap()
    }

    /// All metrics in the text format.
    pub(crate) fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.state.metrics().registry().gather()).unwrap()
    }

    /// The value of a metric, zero if it is not there. `labels` as they stand between the braces, sorted by name.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics();
        let start = format!("{name}{{{labels}}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0.0)
    }
}

/// Waits until that is so.
pub(crate) async fn eventually(what: &str, so: impl Fn() -> bool) {
    for _ in 0..500 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never so: {what}");
}
