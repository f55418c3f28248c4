//! Serves the control streams of gateways. Gateways dial every replica; only the leader serves them. Start at
//! [`serve`].
//!
//! [`accept`] accepts connections, [`auth`] authenticates the gateway, [`hub`] is what streams share, [`stream`] runs one stream, and [`spend`]
//! answers its lease requests and spend reports, [`stuck`] tells people about stuck agents, and [`switch`] carries the kill
//! switch, [`homes`] decides which gateway admits whose calls, and [`server_reports`] carries what tool servers report about
//! themselves. [`reap`](reap::reap) forfeits the leases of pods that are gone. The connected gateways are registered in
//! [`Streams`](crate::shared_state::Streams).

mod accept;
mod alarm;
mod auth;
mod homes;
mod hub;
mod loops;
mod reap;
mod recall;
mod server_reports;
mod spend;
mod stream;
mod stuck;
mod switch;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use mcp_fleet_control::version::{MAX_MESSAGE, not_leader};
use mcp_fleet_control::wire::control_server::{Control, ControlServer};
use mcp_fleet_control::wire::{FromGateway, FromOperator};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::error;

pub use auth::{AuthError, GatewayPod};
pub use homes::PEER_PORT;
pub use hub::{Alarms, AuditHeads, Gateways, Hub, ServerReports};
pub use reap::reap;
pub use recall::recall;
pub use spend::message;
pub use tls::{TlsError, server_config};

/// Maximum number of streams that authenticate concurrently; more wait.
const MAX_AUTHENTICATING: usize = 16;
/// Number of messages that may be queued for a slow gateway.
const OUTBOUND_CAPACITY: usize = 64;
/// Maximum size of a message from a gateway, in bytes. The largest is a report with many items.
const MAX_INBOUND_BYTES: usize = 1024 * 1024;

/// Why the process cannot listen for gateways.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}")]
pub struct ListenError {
    /// Address to listen on.
    address: SocketAddr,
    /// Error of the operating system.
    source: std::io::Error,
}

/// Listens for gateways.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    mcp_fleet_admin::listen(address).await.map_err(|source| ListenError { address, source })
}

/// Serves control streams until `stop`, and returns when they have ended. Every replica does; one that does not lead refuses
/// them with `not_leader`.
pub async fn serve(hub: Arc<Hub>, listener: TcpListener, tls: Arc<rustls::ServerConfig>, stop: CancellationToken) {
    let service = ControlServer::new(Service { hub, authenticating: Arc::new(Semaphore::new(MAX_AUTHENTICATING)) })
        .max_decoding_message_size(MAX_INBOUND_BYTES)
        .max_encoding_message_size(MAX_MESSAGE);
    accept::serve(listener, tls, service, stop).await;
}

struct Service {
    hub: Arc<Hub>,
    authenticating: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Control for Service {
    type ConnectStream = ReceiverStream<Result<FromOperator, Status>>;

    async fn connect(&self, request: Request<Streaming<FromGateway>>) -> Result<Response<Self::ConnectStream>, Status> {
        let Some(leader) = self.hub.shared_state.policies.leader_state() else { return Err(not_leader()) };
        let _permit = self.authenticating.acquire().await.map_err(|_| not_leader())?;
        let gateway = auth::authenticate(&self.hub, request.metadata()).await.map_err(|error| {
            tracing::warn!(error = error::chain(&error), "refused a control stream");
            error.status()
        })?;
        let (sender, receiver) = mpsc::channel(OUTBOUND_CAPACITY);
        tokio::spawn(stream::run(Arc::clone(&self.hub), leader, gateway, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
