//! The control stream: gateways dial every replica, the leader answers.
//!
//! [`accept`] takes connections, [`auth`] finds out which pod calls and for which tenant, [`stream`] is one stream,
//! [`grant`] its traffic with the ledger, [`reap`] what becomes of leases whose pod is gone. Who is connected stands on
//! the board ([`Streams`](crate::shared_state::Streams)).

mod accept;
mod auth;
mod grant;
mod reap;
mod stream;
mod tls;

use std::sync::Arc;

use mcp_fleet_control::version::{MAX_MESSAGE, not_leader};
use mcp_fleet_control::wire::control_server::{Control, ControlServer};
use mcp_fleet_control::wire::{FromGateway, FromOperator};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use reap::reap;
pub(crate) use tls::TlsError;
pub(crate) use tls::server_config;

use crate::context::Context;
use crate::error;

/// How many streams may be authenticating at a time; more wait.
const AUTHENTICATING: usize = 16;
/// Messages that may wait for a slow gateway.
const OUTBOUND: usize = 64;
/// The largest message of a gateway, in bytes: a report with many items.
const MAX_INBOUND: usize = 1024 * 1024;

/// Why the control stream is not served (any more).
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port is taken, or not ours to take.
    #[error("failed to listen on {address}")]
    Listen {
        /// Which address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server broke.
    #[error("failed to serve the control stream")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves the control stream until `stop`, on every replica: one that does not lead says so.
pub(crate) async fn serve(
    ctx: Arc<Context>,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let address = ctx.config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    let incoming = accept::accept(listener, tls, stop.clone());
    let service = ControlServer::new(Service { ctx, authenticating: Arc::new(Semaphore::new(AUTHENTICATING)) })
        .max_decoding_message_size(MAX_INBOUND)
        .max_encoding_message_size(MAX_MESSAGE);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(accept::KEEP_ALIVE))
        .http2_keepalive_timeout(Some(accept::KEEP_ALIVE))
        .tcp_nodelay(true)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}

struct Service {
    ctx: Arc<Context>,
    authenticating: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Control for Service {
    type ConnectStream = ReceiverStream<Result<FromOperator, Status>>;

    async fn connect(&self, request: Request<Streaming<FromGateway>>) -> Result<Response<Self::ConnectStream>, Status> {
        let Some(leading) = self.ctx.shared_state.policies.leading() else { return Err(not_leader()) };
        let _turn = self.authenticating.acquire().await.map_err(|_| not_leader())?;
        let caller = auth::authenticate(&self.ctx, request.metadata()).await.map_err(|refused| {
            tracing::warn!(error = error::chain(&refused), "refused a control stream");
            refused.status()
        })?;
        let (sender, receiver) = mpsc::channel(OUTBOUND);
        tokio::spawn(stream::run(Arc::clone(&self.ctx), leading, caller, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
