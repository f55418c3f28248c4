//! A fake operator for gateway processes: pushes one policy, proves that it is fresh, grants every lease, and decides which
//! gateway is the home of all principals.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_fleet_control::clock::boot_millis;
use mcp_fleet_control::homes::{Others, Peer, Usage, answer_to_wire, beat_from_wire};
use mcp_fleet_control::wire::control_server::{Control, ControlServer};
use mcp_fleet_control::wire::kept_server_reports::KeptDigest;
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_control::{EncodedPolicy, encode, version};
use mcp_fleet_homes::leader::{Leader, Times};
use mcp_fleet_homes::message::Instruction;
use mcp_fleet_homes::shares::{Divided, Limits};
use mcp_fleet_homes::view::Member;
use mcp_fleet_policy::governor::{InFlight, SharedLimit};
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::pki::now;

/// The term of the leader.
const TERM: u64 = 7;
/// Interval of freshness messages.
const FRESHNESS_INTERVAL: Duration = Duration::from_secs(1);

/// The reports of refused loops that an operator has received.
pub(crate) type LoopReports = Arc<Mutex<Vec<wire::LoopReport>>>;
/// The reports of servers that an operator has received, and keeps: the last of each server.
pub(crate) type ServerReports = Arc<Mutex<Vec<wire::SeenServerReport>>>;

/// What an operator has received.
#[derive(Clone, Default)]
pub(crate) struct Received {
    pub(crate) loops: LoopReports,
    pub(crate) server_reports: ServerReports,
}

/// Addresses at which gateways accept forwarded requests, by the UIDs of their pods.
pub(crate) type PeerAddresses = Arc<Mutex<HashMap<String, SocketAddr>>>;

/// A running operator.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) address: SocketAddr,
    pub(crate) received: Received,
    /// What it tells gateways about each other.
    pub(crate) peers: PeerAddresses,
    policy: watch::Sender<TenantPolicy>,
    hides_peers: Arc<AtomicBool>,
    stops: Arc<AtomicBool>,
}

impl Operator {
    /// Stops all calls from the next proof of freshness on, as the fleet's kill switch.
    pub(crate) fn stop_calls(&self) {
        self.stops.store(true, Ordering::SeqCst);
    }

    /// Tells gateways nothing about each other, as an operator of an earlier version.
    pub(crate) fn hide_peers(&self) {
        self.hides_peers.store(true, Ordering::SeqCst);
    }

    /// Changes the policy, and pushes it as the next generation.
    pub(crate) fn change_policy(&self, change: impl FnOnce(&mut TenantPolicy)) {
        self.policy.send_modify(|policy| {
            change(policy);
            policy.generation += 1;
        });
    }
}

#[derive(Clone)]
struct Service {
    policy: watch::Receiver<TenantPolicy>,
    received: Received,
    leader: Arc<Mutex<Homes>>,
    stops: Arc<AtomicBool>,
}

/// Decides homes.
struct Homes {
    leader: Leader,
    /// Calls in flight at gateways that admit none any more.
    in_flight: HashMap<Member, Vec<InFlight>>,
    peers: PeerAddresses,
    hides_peers: Arc<AtomicBool>,
    limits: Limits<SharedLimit>,
    /// UIDs of pods whose gateways should send a beat now.
    concerned: broadcast::Sender<String>,
}

impl Homes {
    fn answer(&mut self, from: &Member, beat: wire::HomeBeat) -> Option<wire::HomeAnswer> {
        let (beat, Usage { in_flight, demands }) = beat_from_wire(beat).unwrap();
        let (now, numbers) = (boot_millis(), (beat.number, beat.accepted));
        let before = self.leader.view_ids();
        let answer = self.leader.receive(now, from, beat)?;
        let Divided { shares: division, concerned } = self.limits.divide(&self.leader, now, from, numbers, demands);
        let has_moved = self.leader.view_ids() != before;
        for member in self.leader.gateways().filter(|member| has_moved || concerned.contains(*member)) {
            if member.pod_uid != from.pod_uid {
                // None may be connected.
                let _ = self.concerned.send(member.pod_uid.to_string());
            }
        }
        self.in_flight.insert(from.clone(), in_flight);
        let others = self.in_flight.iter().filter(|(member, _)| *member != from);
        let in_flight = others.flat_map(|(_, calls)| calls.clone()).collect();
        let members = self.leader.members().into_iter().filter(|member| member.pod_uid != from.pod_uid);
        let addresses = self.peers.lock();
        let peer = |member: &Member| {
            let pod_uid = member.pod_uid.to_string();
            addresses.get(&pod_uid).map(|address| Peer { pod_uid, address: *address })
        };
        let hidden = self.hides_peers.load(Ordering::SeqCst);
        let peers = members.filter(|_| !hidden).filter_map(peer).collect();
        let current = self.leader.current().filter(|_| answer.instruction == Instruction::Wait).cloned();
        let end_ms = self.leader.others_have_leases(now, from);
        Some(answer_to_wire(&answer, Others { end_ms, in_flight, peers, division, current }))
    }
}

/// Starts an operator with the certificate in the folder `tls`. `lease` is how long gateways are homes without the operator,
/// and `places` how many of them share the principals.
pub(crate) async fn start_operator(tls: &Path, policy: &TenantPolicy, lease: Duration, places: usize) -> Operator {
    let read = |name: &str| std::fs::read(tls.join(name)).unwrap();
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(read("tls.crt"), read("tls.key")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (received, peers) = (Received::default(), PeerAddresses::default());
    // As the operator: with one place there is nobody to forward to.
    let hides_peers = Arc::new(AtomicBool::new(places == 1));
    let sole = u64::try_from(lease.as_millis()).unwrap();
    // A gateway that is one of several must not lose its lease because the machine is busy.
    let shared = if places > 1 { sole } else { 1_500 };
    let mut leader = Leader::new(TERM, 0, Times { shared, sole, earlier: sole, margin: 500 }, places);
    leader.no_others_run();
    let (addresses, hides) = (Arc::clone(&peers), Arc::clone(&hides_peers));
    let homes = Homes {
        leader,
        in_flight: HashMap::new(),
        peers: addresses,
        hides_peers: hides,
        limits: Limits::default(),
        concerned: broadcast::channel(64).0,
    };
    let leader = Arc::new(Mutex::new(homes));
    let (policy, published) = watch::channel(policy.clone());
    let stops = Arc::<AtomicBool>::default();
    let service = Service { policy: published, received: received.clone(), leader, stops: Arc::clone(&stops) };
    let service = ControlServer::new(service);
    let server = Server::builder().tls_config(tls).unwrap().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Operator { address, received, peers, policy, hides_peers, stops }
}

#[tonic::async_trait]
impl Control for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<wire::FromOperator, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::FromGateway>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (outbox, outgoing) = mpsc::channel(64);
        // The token of a test is the UID of the gateway's pod.
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap();
        let pod_uid = token.strip_prefix("Bearer ").unwrap().to_owned();
        tokio::spawn(self.clone().serve(pod_uid, request.into_inner(), outbox));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl Service {
    async fn serve(
        self,
        pod_uid: String,
        mut inbound: Streaming<wire::FromGateway>,
        outbox: mpsc::Sender<Result<wire::FromOperator, Status>>,
    ) {
        let Self { mut policy, received, leader, stops } = self;
        let mut generation = policy.borrow_and_update().generation;
        let mut outgoing = vec![
            from_operator::Message::Hello(wire::OperatorHello {
                version: version::MAX,
                term: TERM,
                pod_uid: pod_uid.clone(),
            }),
            push(&policy.borrow()),
            kept(&received.server_reports.lock()),
        ];
        let mut concerned = leader.lock().concerned.subscribe();
        let mut member = Member { pod_uid: pod_uid.into(), epoch: "".into() };
        let mut freshness = tokio::time::interval(FRESHNESS_INTERVAL);
        loop {
            for message in outgoing.drain(..) {
                // The gateway may have been killed; the loop then ends at its next message.
                let _ = outbox.send(Ok(wire::FromOperator { message: Some(message) })).await;
            }
            tokio::select! {
                Ok(()) = policy.changed() => {
                    let changed = policy.borrow_and_update();
                    generation = changed.generation;
                    outgoing.push(push(&changed));
                }
                Ok(pod_uid) = concerned.recv() => {
                    if *pod_uid == *member.pod_uid {
                        outgoing.push(from_operator::Message::HomesChanged(wire::HomesChanged {}));
                    }
                }
                _ = freshness.tick() => {
                    let stop = stops.load(Ordering::SeqCst);
                    let kill_switch = stop.then(|| wire::KillSwitch { stop, reason: "a test".to_owned(), age_ms: 0 });
                    outgoing.push(from_operator::Message::Freshness(wire::Freshness { generation, age_ms: 0, kill_switch }));
                }
                message = inbound.message() => match message {
                    Ok(Some(wire::FromGateway { message: Some(from_gateway::Message::Loop(report)) })) => {
                        received.loops.lock().push(report);
                    }
                    Ok(Some(wire::FromGateway { message: Some(from_gateway::Message::SeenServerReport(report)) })) => {
                        outgoing.push(kept(std::slice::from_ref(&report)));
                        received.server_reports.lock().push(report);
                    }
                    Ok(Some(wire::FromGateway { message: Some(from_gateway::Message::WantedServerReports(wanted)) })) => {
                        let reports = received.server_reports.lock();
                        let last = |uid: &String| reports.iter().rfind(|report| report.server_uid == *uid).cloned();
                        outgoing.extend(wanted.server_uids.iter().filter_map(last).map(give));
                    }
                    Ok(Some(wire::FromGateway { message: Some(from_gateway::Message::Hello(hello)) })) => {
                        member.epoch = hello.epoch.into();
                    }
                    Ok(Some(wire::FromGateway { message: Some(from_gateway::Message::HomeBeat(beat)) })) => {
                        outgoing.extend(leader.lock().answer(&member, beat).map(from_operator::Message::HomeAnswer));
                    }
                    Ok(Some(wire::FromGateway { message: Some(message) })) => outgoing.extend(answer(message)),
                    Ok(Some(wire::FromGateway { message: None })) => {}
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }
}

/// Says that the operator keeps these reports of servers.
fn kept(reports: &[wire::SeenServerReport]) -> from_operator::Message {
    let digest = |report: &wire::SeenServerReport| KeptDigest {
        server_uid: report.server_uid.clone(),
        digest: report.digest.clone(),
    };
    from_operator::Message::KeptServerReports(wire::KeptServerReports { kept: reports.iter().map(digest).collect() })
}

/// Gives a report back.
fn give(report: wire::SeenServerReport) -> from_operator::Message {
    let wire::SeenServerReport { server_uid, digest, report } = report;
    from_operator::Message::KeptServerReport(wire::KeptServerReport { server_uid, digest, report })
}

fn push(policy: &TenantPolicy) -> from_operator::Message {
    let EncodedPolicy { bytes, digest } = encode(policy);
    let (generation, digest) = (policy.generation, digest.to_vec());
    from_operator::Message::Policy(wire::PolicyPush { generation, policy: bytes, digest })
}

fn answer(message: from_gateway::Message) -> Option<from_operator::Message> {
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
