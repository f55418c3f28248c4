//! A fake operator for a gateway process: pushes one policy, proves that it is fresh, and grants every lease.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_control::wire::control_server::{Control, ControlServer};
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_control::{EncodedPolicy, encode, version};
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::pki::now;

/// Interval of freshness messages.
const FRESHNESS_INTERVAL: Duration = Duration::from_secs(1);

/// The reports of refused loops that an operator has received.
pub(crate) type LoopReports = Arc<Mutex<Vec<wire::LoopReport>>>;

#[derive(Clone)]
struct Service {
    generation: u64,
    policy: EncodedPolicy,
    loops: LoopReports,
}

/// Starts an operator with the certificate in the folder `tls`. Returns its address, and the reports that it will have
/// received.
pub(crate) async fn start_operator(tls: &Path, policy: &TenantPolicy) -> (SocketAddr, LoopReports) {
    let read = |name: &str| std::fs::read(tls.join(name)).unwrap();
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(read("tls.crt"), read("tls.key")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let loops = LoopReports::default();
    let service = Service { generation: policy.generation, policy: encode(policy), loops: Arc::clone(&loops) };
    let service = ControlServer::new(service);
    let server = Server::builder().tls_config(tls).unwrap().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (address, loops)
}

#[tonic::async_trait]
impl Control for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<wire::FromOperator, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::FromGateway>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (outbox, outgoing) = mpsc::channel(64);
        tokio::spawn(self.clone().serve(request.into_inner(), outbox));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl Service {
    async fn serve(
        self,
        mut inbound: Streaming<wire::FromGateway>,
        outbox: mpsc::Sender<Result<wire::FromOperator, Status>>,
    ) {
        let Self { generation, policy: EncodedPolicy { bytes: policy, digest }, loops } = self;
        let digest = digest.to_vec();
        let mut outgoing = vec![
            from_operator::Message::Hello(wire::OperatorHello { version: version::MAX }),
            from_operator::Message::Policy(wire::PolicyPush { generation, policy, digest }),
        ];
        let mut freshness = tokio::time::interval(FRESHNESS_INTERVAL);
        loop {
            for message in outgoing.drain(..) {
                // The gateway may have been killed; the loop then ends at its next message.
                let _ = outbox.send(Ok(wire::FromOperator { message: Some(message) })).await;
            }
            tokio::select! {
                _ = freshness.tick() => {
                    outgoing.push(from_operator::Message::Freshness(wire::Freshness { generation, age_ms: 0, kill_switch: None }));
                }
                received = inbound.message() => match received {
                    Ok(Some(wire::FromGateway { message: Some(from_gateway::Message::Loop(report)) })) => {
                        loops.lock().push(report);
                    }
                    Ok(Some(wire::FromGateway { message: Some(message) })) => outgoing.extend(answer(message)),
                    Ok(Some(wire::FromGateway { message: None })) => {}
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }
}

fn answer(message: from_gateway::Message) -> Option<from_operator::Message> {
    match message {
        from_gateway::Message::Hello(_)
        | from_gateway::Message::AuditHead(_)
        | from_gateway::Message::Stuck(_)
        | from_gateway::Message::Loop(_) => None,
        from_gateway::Message::Ack(ack) => {
            assert_eq!(ack.error, "", "the gateway rejected the policy");
            None
        }
        from_gateway::Message::LeaseRequest(request) => Some(from_operator::Message::Lease(wire::LeaseAnswer {
            lease: format!("lease-{}", request.request),
            amount: request.amount.max(request.minimum_amount),
            calls: request.calls.max(request.minimum_calls),
            request: request.request,
            budget_uid: request.budget_uid,
            period_start: now() - 60,
            valid_ms: 120_000,
            period_end: now() + 86_400,
            outcome: Outcome::Granted.into(),
            balance: None,
        })),
        from_gateway::Message::Spend(report) => Some(from_operator::Message::SpendAck(wire::SpendAck {
            lease: report.lease,
            sequence: report.sequence,
            balance: None,
        })),
    }
}
