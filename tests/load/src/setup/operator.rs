//! A minimal operator: pushes one policy, proves its freshness, grants every lease and acknowledges every report.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use mcp_fleet_control::wire::control_server::{Control, ControlServer};
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_control::{EncodedPolicy, encode, version};
use mcp_fleet_policy::model::TenantPolicy;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Interval of freshness messages, as with the real leader.
const FRESHNESS_INTERVAL: Duration = Duration::from_secs(2);
/// How long leases are valid.
const LEASE_LIFETIME: Duration = Duration::from_mins(2);

/// Money reported as spent, by lease. Reports contain totals, so the last one of each lease counts.
type Spent = Arc<Mutex<HashMap<String, u64>>>;

/// A running operator.
#[derive(Debug)]
pub(crate) struct Operator {
    /// Address of the operator.
    pub(crate) address: SocketAddr,
    spent: Spent,
}

#[derive(Clone, Debug)]
struct Service {
    generation: u64,
    policy: EncodedPolicy,
    spent: Spent,
}

impl Operator {
    /// Starts an operator with the certificate in the folder `tls`.
    pub(crate) async fn start(tls: &Path, policy: &TenantPolicy) -> anyhow::Result<Self> {
        let read = |name: &str| std::fs::read(tls.join(name)).with_context(|| format!("failed to read {name}"));
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(read("tls.crt")?, read("tls.key")?));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let spent = Spent::default();
        let service = Service { generation: policy.generation, policy: encode(policy), spent: spent.clone() };
        let server = Server::builder().tls_config(tls)?.add_service(ControlServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Ok(Self { address, spent })
    }

    /// Returns the money reported as spent so far, in millionths.
    pub(crate) fn spent(&self) -> u64 {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

type Outbox = mpsc::Sender<Result<wire::FromOperator, Status>>;

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
    async fn serve(self, mut inbound: Streaming<wire::FromGateway>, outbox: Outbox) {
        let push = wire::PolicyPush {
            generation: self.generation,
            policy: self.policy.bytes.clone(),
            digest: self.policy.digest.to_vec(),
        };
        let greeting = [
            from_operator::Message::Hello(wire::OperatorHello {
                version: version::MAX,
                ..wire::OperatorHello::default()
            }),
            from_operator::Message::Policy(push),
        ];
        for message in greeting {
            send(&outbox, message).await;
        }
        let mut freshness = tokio::time::interval(FRESHNESS_INTERVAL);
        loop {
            let answer = tokio::select! {
                _ = freshness.tick() => {
                    let message = wire::Freshness { generation: self.generation, age_ms: 0, kill_switch: None };
                    Some(from_operator::Message::Freshness(message))
                }
                received = inbound.message() => match received {
                    Ok(Some(wire::FromGateway { message: Some(message) })) => self.answer(message),
                    Ok(Some(wire::FromGateway { message: None })) => None,
                    Ok(None) | Err(_) => return,
                },
            };
            if let Some(answer) = answer {
                send(&outbox, answer).await;
            }
        }
    }

    fn answer(&self, message: from_gateway::Message) -> Option<from_operator::Message> {
        match message {
            from_gateway::Message::Hello(_)
            | from_gateway::Message::AuditHead(_)
            | from_gateway::Message::Stuck(_)
            | from_gateway::Message::Loop(_)
            | from_gateway::Message::HomeBeat(_)
            | from_gateway::Message::PublicCertificates(_)
            | from_gateway::Message::SeenServerReport(_)
            | from_gateway::Message::WantedServerReports(_) => None,
            from_gateway::Message::Ack(ack) => {
                if !ack.error.is_empty() {
                    eprintln!("the gateway rejected the policy: {}", ack.error);
                }
                None
            }
            from_gateway::Message::LeaseRequest(request) => Some(from_operator::Message::Lease(grant(&request))),
            from_gateway::Message::Spend(report) => {
                let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
                let ack = wire::SpendAck { lease: report.lease.clone(), sequence: report.sequence, balance: None };
                spent.insert(report.lease, report.amount);
                Some(from_operator::Message::SpendAck(ack))
            }
        }
    }
}

/// Grants a request in full, for a period that is longer than the run.
fn grant(request: &wire::LeaseRequest) -> wire::LeaseAnswer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    wire::LeaseAnswer {
        request: request.request,
        budget_uid: request.budget_uid.clone(),
        lease: format!("{now}.{}", request.request),
        amount: request.amount.max(request.minimum_amount),
        calls: request.calls.max(request.minimum_calls),
        period_start: now - now % 86_400,
        valid_ms: u64::try_from(LEASE_LIFETIME.as_millis()).unwrap_or(u64::MAX),
        period_end: now - now % 86_400 + 30 * 86_400,
        outcome: Outcome::Granted.into(),
        balance: None,
    }
}

async fn send(outbox: &Outbox, message: from_operator::Message) {
    // This fails only if the gateway has disconnected, and then the caller's loop ends in its next iteration.
    drop(outbox.send(Ok(wire::FromOperator { message: Some(message) })).await);
}
