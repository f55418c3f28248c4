//! A fake operator that a test controls: a tonic server over TLS on loopback.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use mcp_fleet_control::version::{self, MAX_MESSAGE};
use mcp_fleet_control::wire::control_server::{Control as ControlService, ControlServer};
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_control::{EncodedPolicy, encode};
use mcp_fleet_policy::model::TenantPolicy;
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::gateway::control::Args;

pub(super) const NAME: &str = "mcp-fleet-operator.mcp-fleet-system.svc";
/// Long enough for a busy machine. A passing test never waits this long.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A fake operator: the test's end of all streams.
pub(super) struct Operator {
    pub(super) args: Args,
    pub(super) dir: tempfile::TempDir,
    dials: mpsc::Receiver<Dial>,
    _server: tokio_util::sync::DropGuard,
}

/// A gateway that has dialled and waits for the operator's answer.
pub(super) struct Dial {
    /// Value of the `authorization` header.
    pub(super) authorization: String,
    inbound: Streaming<wire::FromGateway>,
    answer: tokio::sync::oneshot::Sender<Result<mpsc::Receiver<Result<wire::FromOperator, Status>>, Status>>,
}

/// The operator's end of one control stream.
pub(super) struct ControlStream {
    pub(super) hello: wire::GatewayHello,
    inbound: Streaming<wire::FromGateway>,
    outbox: mpsc::Sender<Result<wire::FromOperator, Status>>,
}

struct Service(mpsc::Sender<Dial>);

#[tonic::async_trait]
impl ControlService for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<wire::FromOperator, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::FromGateway>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let authorization = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let dial = Dial { authorization, inbound: request.into_inner(), answer };
        self.0.send(dial).await.map_err(|_| Status::unavailable("the test is over"))?;
        let outgoing = answered.await.map_err(|_| Status::unavailable("the test dropped the dial"))??;
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl Operator {
    /// Starts an operator whose certificate has this name.
    pub(super) async fn start(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("token"), "first-token\n").unwrap();
        std::fs::create_dir(dir.path().join("policy")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (dialled, dials) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate.pem(), key.serialize_pem()));
        let service = ControlServer::new(Service(dialled)).max_decoding_message_size(MAX_MESSAGE);
        let server = Server::builder().tls_config(tls).unwrap().add_service(service);
        tokio::spawn(server.serve_with_incoming_shutdown(TcpIncoming::from(listener), stopped));
        let args = Args {
            operator_address: address,
            operator_name: NAME.to_owned(),
            token_file: dir.path().join("token"),
            policy_dir: dir.path().join("policy"),
        };
        Self { args, dir, dials, _server: stop.drop_guard() }
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Writes a snapshot to the gateway's policy directory.
    pub(super) fn mount(&self, policy: &TenantPolicy) {
        for (name, bytes) in mcp_fleet_control::snapshot::write_files(policy.generation, &encode(policy), None).unwrap()
        {
            std::fs::write(self.args.policy_dir.join(name), bytes).unwrap();
        }
    }

    /// Waits for the next dial.
    pub(super) async fn next_dial(&mut self) -> Dial {
        within(self.dials.recv()).await.expect("the server runs")
    }

    /// Returns whether there is no dial for a while.
    pub(super) async fn has_no_dial(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(600), self.dials.recv()).await.is_err()
    }

    /// Waits for the next dial and accepts it.
    pub(super) async fn accept(&mut self) -> ControlStream {
        self.next_dial().await.accept().await
    }
}

impl Dial {
    pub(super) fn refuse(self, status: Status) {
        assert!(self.answer.send(Err(status)).is_ok(), "the gateway waits");
    }

    /// Accepts the dial and exchanges hellos.
    pub(super) async fn accept(self) -> ControlStream {
        self.accept_with(version::MAX).await
    }

    /// Accepts the dial as the leader of this term, which decides homes. The gateway's pod has the UID `pod-1`.
    pub(super) async fn accept_as(self, term: u64) -> ControlStream {
        self.answer(wire::OperatorHello { version: version::MAX, term, pod_uid: "pod-1".into() }).await
    }

    /// Accepts the dial with a hello of this version. This operator does not decide homes.
    pub(super) async fn accept_with(self, version: u32) -> ControlStream {
        self.answer(wire::OperatorHello { version, term: 0, pod_uid: String::new() }).await
    }

    async fn answer(self, hello: wire::OperatorHello) -> ControlStream {
        let Self { mut inbound, answer, .. } = self;
        let (outbox, outgoing) = mpsc::channel(64);
        assert!(answer.send(Ok(outgoing)).is_ok(), "the gateway waits");
        let Some(from_gateway::Message::Hello(gateway_hello)) =
            within(inbound.message()).await.unwrap().unwrap().message
        else {
            panic!("the first message is a hello")
        };
        let stream = ControlStream { hello: gateway_hello, inbound, outbox };
        stream.send(from_operator::Message::Hello(hello)).await;
        stream
    }
}

impl ControlStream {
    pub(super) async fn send(&self, message: from_operator::Message) {
        self.outbox.send(Ok(wire::FromOperator { message: Some(message) })).await.unwrap();
    }

    /// Returns the gateway's next message.
    pub(super) async fn next(&mut self) -> from_gateway::Message {
        within(self.inbound.message()).await.unwrap().expect("the stream is open").message.expect("a known message")
    }

    /// Returns whether the gateway ends the stream.
    pub(super) async fn is_ended(&mut self) -> bool {
        !matches!(within(self.inbound.next()).await, Some(Ok(_)))
    }

    /// Pushes bytes as a policy and returns the gateway's answer.
    pub(super) async fn push_bytes(&mut self, generation: u64, encoded: EncodedPolicy) -> wire::PolicyAck {
        let EncodedPolicy { bytes: policy, digest } = encoded;
        let digest = digest.to_vec();
        self.send(from_operator::Message::Policy(wire::PolicyPush { generation, policy, digest })).await;
        match self.next().await {
            from_gateway::Message::Ack(ack) => ack,
            other => panic!("an ack was expected, not {other:?}"),
        }
    }

    /// Pushes a policy and returns the gateway's answer.
    pub(super) async fn push(&mut self, policy: &TenantPolicy) -> wire::PolicyAck {
        self.push_bytes(policy.generation, encode(policy)).await
    }

    /// Sends a proof of freshness.
    pub(super) async fn prove(&self, generation: u64, age_ms: u32) {
        self.send(from_operator::Message::Freshness(wire::Freshness { generation, age_ms, kill_switch: None })).await;
    }
}

/// Waits for a future, at most [`TEST_TIMEOUT`].
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, future).await.expect("it has to happen in time")
}
