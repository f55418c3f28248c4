//! Access to the tool servers, through the shims in their pods: one [`Upstream`] for each server.
//!
//! Start with [`exchange`], which sends one call and reads the events of its answer. [`pod`] is one pod of a server,
//! [`connection`] one HTTP/1.1 connection to its shim. [`report`] caches how a server
//! describes itself and its tools, and [`outgoing`] is the one that the operator should keep.

mod connection;
mod exchange;
mod health;
mod outgoing;
mod pod;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use mcp_fleet_policy::list::{self, Pins};
use mcp_fleet_policy::model;
use rustls::ClientConfig;

pub(crate) use exchange::{Event, Exchange};
use health::Health;
pub(crate) use outgoing::{ReportDigest, SeenReport};
use pod::Pod;
pub(crate) use report::{KeptError, Report};

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

/// Number of pods that are tried for a request while none accepts the connection.
const MAX_ATTEMPTS: usize = 3;

/// One tool server, for as long as its pods stay the same.
#[derive(Debug)]
pub(crate) struct Upstream {
    server: Arc<Server>,
    pods: Box<[Arc<Pod>]>,
    /// Position of the pod that is asked next, if there are several.
    next: AtomicUsize,
}

/// What is known of a tool server, whichever pods it has.
#[derive(Debug)]
struct Server {
    identity: String,
    tls: Option<Arc<ClientConfig>>,
    /// Account for the memory of its connections.
    memory: Arc<Account>,
    reports: report::ReportCache,
    /// The definitions that the catalogue names.
    pins: ArcSwap<Pins>,
    health: Health,
}

/// Why a tool server did not answer, or what was wrong with its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// There is no connection: the server has certainly not seen the call.
    #[error("failed to connect to the tool server")]
    Connect(#[source] std::io::Error),
    /// No pod of the server has an address.
    #[error("the tool server has no pod to connect to")]
    NoPod,
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
            Self::Connect(_) | Self::NoPod | Self::Broken(_) | Self::Paused | Self::Status(_) | Self::Ended(_) => false,
        }
    }
}

impl Upstream {
    /// Returns the upstream of a server. Takes over from `previous` what has not changed: open connections to the same
    /// pods, and, if the identity is the same, the report, so that a new pod does not change which tools are listed.
    pub(crate) fn for_server(
        model: &model::Server,
        dialer: &Dialer,
        memory: &Memory,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, TlsError> {
        let previous = previous.filter(|previous| previous.server.identity == model.identity);
        let pins = Arc::new(list::pins(model));
        if let Some(previous) = previous
            && **previous.server.pins.load() != *pins
        {
            previous.server.pins.store(Arc::clone(&pins));
        }
        if let Some(previous) = previous
            && previous.pods.iter().map(|pod| pod.address).eq(model.addresses.iter().copied())
        {
            return Ok(Arc::clone(previous));
        }
        let server = match previous {
            Some(previous) => Arc::clone(&previous.server),
            None => Arc::new(Server {
                identity: model.identity.clone(),
                tls: match dialer {
                    Dialer::Mutual(identity) => Some(client_config(Arc::clone(identity), &model.identity)?),
                    Dialer::Plain => None,
                },
                memory: Arc::clone(&memory.requests),
                reports: report::ReportCache::default(),
                pins: ArcSwap::new(pins),
                health: Health::default(),
            }),
        };
        let known = |address| previous?.pods.iter().find(|pod| pod.address == address).cloned();
        let pods =
            model.addresses.iter().map(|address| known(*address).unwrap_or_else(|| Arc::new(Pod::new(*address))));
        Ok(Arc::new(Self { server, pods: pods.collect(), next: AtomicUsize::new(0) }))
    }

    /// Returns whether the server has a pod to connect to.
    pub(crate) fn has_pods(&self) -> bool {
        !self.pods.is_empty()
    }

    /// Returns the pods to which the next request may be sent, in the order in which to try them. Pods take turns.
    fn turn(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let first = if self.pods.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) % self.pods.len() } else { 0 };
        let (before, after) = self.pods.split_at(first);
        after.iter().chain(before).take(MAX_ATTEMPTS)
    }

    /// Notes whether the server answered its last request.
    pub(crate) fn note_health(&self, up: bool) {
        self.server.health.note(up);
    }

    /// Returns whether the server answered its last request, or `None` before the first. A server without pods is down.
    pub(crate) fn is_up(&self) -> Option<bool> {
        if self.has_pods() { self.server.health.is_up() } else { Some(false) }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn prune(&self) {
        self.pods.iter().for_each(|pod| pod.prune());
    }
}
