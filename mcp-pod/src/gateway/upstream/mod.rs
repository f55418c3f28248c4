//! The way to the tool servers: one [`Upstream`] for each, with its own pool of connections.
//!
//! [`connection`] is one HTTP/1.1 connection, driven by whoever uses it; [`pool`] keeps idle ones; [`exchange`] is
//! one call and the events that answer it; [`report`] is what the server says of itself.

mod connection;
mod exchange;
mod pool;
mod report;

use std::net::SocketAddr;
use std::sync::Arc;

use mcp_fleet_policy::model::Server;
use rustls::ClientConfig;

pub(crate) use exchange::{Event, Exchange};
pub(crate) use report::Report;

use crate::tls::{Identity, TlsError, client_config};

/// How tool servers are reached.
#[derive(Clone, Debug)]
pub enum Dialer {
    /// By mutual TLS with this identity: the only way in the product.
    Mutual(Arc<Identity>),
    /// Without TLS: for the bench, which compares with others that have none.
    Plain,
}

/// One tool server, as long as its address and identity stay the same.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    identity: String,
    tls: Option<Arc<ClientConfig>>,
    pool: pool::Pool,
    report: report::Cache,
}

/// Why the server could not be asked, or what was wrong with its answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No connection: the server certainly has not seen the call.
    #[error("failed to connect to the tool server")]
    Connect(#[source] std::io::Error),
    /// The connection broke: the server may have seen the call.
    #[error("failed to hear the tool server out")]
    Broken(#[source] hyper::Error),
    /// It could not be asked a moment ago.
    #[error("the tool server did not answer a moment ago, and is asked again in a second")]
    Paused,
    /// The shim answered with something else than an answer.
    #[error("the shim answered with status {0}")]
    Status(http::StatusCode),
    /// Not what the envelope between gateway and shim says.
    #[error("the shim's answer is not in the agreed form: {0}")]
    Form(&'static str),
    /// More bytes than were asked for.
    #[error("the answer is larger than the limit")]
    TooLarge,
}

impl Upstream {
    /// The upstream of that server; absent while it has no address. Kept from `before` where nothing changed, so
    /// that its connections live on.
    pub(crate) fn of(
        server: &Server,
        dialer: &Dialer,
        before: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(address) = server.upstream else { return Ok(None) };
        if let Some(before) = before
            && before.address == address
            && before.identity == server.identity
        {
            return Ok(Some(Arc::clone(before)));
        }
        let tls = match dialer {
            Dialer::Mutual(identity) => Some(client_config(Arc::clone(identity), &server.identity)?),
            Dialer::Plain => None,
        };
        Ok(Some(Arc::new(Self {
            address,
            identity: server.identity.clone(),
            tls,
            pool: pool::Pool::default(),
            report: report::Cache::default(),
        })))
    }

    /// Closes connections that have been idle for long.
    pub(crate) fn prune(&self) {
        self.pool.prune(std::time::Instant::now());
    }
}
