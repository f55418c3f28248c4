//! Access to the tool servers, through their shims: one [`Upstream`] for each, with its own pool of connections.
//!
//! Start with [`exchange`], which sends one call and reads the events of its answer. [`connection`] is one HTTP/1.1
//! connection and [`pool`] holds idle ones. [`report`] caches how a server describes itself and its tools.

mod connection;
mod exchange;
mod health;
mod pool;
mod report;

use std::net::SocketAddr;
use std::sync::Arc;

use mcp_fleet_policy::model::Server;
use rustls::ClientConfig;

pub(crate) use exchange::{Event, Exchange};
use health::Health;
pub(crate) use report::Report;

use super::memory::{Account, Memory};
use crate::tls::{Identity, TlsError, client_config};

/// How the gateway connects to tool servers.
#[derive(Clone, Debug)]
pub enum Dialer {
    /// With mutual TLS and this identity: the only kind that the gateway process uses.
    Mutual(Arc<Identity>),
    /// Without TLS: for the load test, which compares with gateways that have none.
    Plain,
}

/// One tool server, for as long as its address and identity stay the same.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    identity: String,
    tls: Option<Arc<ClientConfig>>,
    /// Account for the memory of its connections.
    memory: Arc<Account>,
    pool: pool::Pool,
    reports: report::ReportCache,
    health: Health,
}

/// Why a tool server did not answer, or what was wrong with its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// There is no connection: the server has certainly not seen the call.
    #[error("failed to connect to the tool server")]
    Connect(#[source] std::io::Error),
    /// The connection broke: the server may have seen the call.
    #[error("failed to read the tool server's answer")]
    Broken(#[source] hyper::Error),
    /// The last attempt failed less than a second ago.
    #[error("the tool server failed to answer less than a second ago and is not asked again yet")]
    Paused,
    /// The shim answered with another status than 200.
    #[error("the shim answered with status {0}")]
    Status(http::StatusCode),
    /// The answer does not follow the protocol between gateway and shim ([`crate::envelope`]).
    #[error("the shim's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The answer ended too early.
    #[error("the shim's answer is incomplete: {0}")]
    Ended(&'static str),
    /// The answer has more bytes than the limit allows.
    #[error("the answer is larger than the limit")]
    TooLarge,
}

impl UpstreamError {
    /// Returns whether the shim may still be answering.
    pub(crate) const fn leaves_answer_open(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::TooLarge => true,
            Self::Connect(_) | Self::Broken(_) | Self::Paused | Self::Status(_) | Self::Ended(_) => false,
        }
    }
}

impl Upstream {
    /// Returns the upstream of a server, or `None` while the server has no address. Returns `previous` if address and
    /// identity are unchanged, so that its connections stay open.
    pub(crate) fn for_server(
        server: &Server,
        dialer: &Dialer,
        memory: &Memory,
        previous: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(address) = server.upstream else { return Ok(None) };
        if let Some(previous) = previous
            && previous.address == address
            && previous.identity == server.identity
        {
            return Ok(Some(Arc::clone(previous)));
        }
        let tls = match dialer {
            Dialer::Mutual(identity) => Some(client_config(Arc::clone(identity), &server.identity)?),
            Dialer::Plain => None,
        };
        Ok(Some(Arc::new(Self {
            address,
            identity: server.identity.clone(),
            tls,
            memory: Arc::clone(&memory.requests),
            pool: pool::Pool::default(),
            reports: report::ReportCache::default(),
            health: Health::default(),
        })))
    }

    /// Notes whether the server answered its last request.
    pub(crate) fn note_health(&self, up: bool) {
        self.health.note(up);
    }

    /// Returns whether the server answered its last request, or `None` before the first.
    pub(crate) fn is_up(&self) -> Option<bool> {
        self.health.is_up()
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn prune(&self) {
        self.pool.prune(std::time::Instant::now());
    }
}
