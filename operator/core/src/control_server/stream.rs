//! Runs one control stream: hello messages, then policies, freshness and acknowledgements until either side ends it.
//! Start at [`run`].

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_control::feature::OTHER_AUDIENCES;
use mcp_fleet_control::version::{negotiate, not_leader};
use mcp_fleet_control::wire::{
    FromGateway, GatewayHello, HomeBeat, KeptServerReports, OperatorHello, PolicyAck, PolicyPush, PublicCertificates,
    SeenServerReport, WantedServerReports, from_gateway, from_operator,
};
use mcp_fleet_control::{Digest, Form};
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_policy::model::MAX_OTHER_AUDIENCES;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::alarm::{Alarm, AlarmLimit};
use super::auth::{AuthError, GatewayPod};
use super::homes;
use super::hub::Hub;
use super::server_reports;
use super::spend::{self, message};
use super::switch::{freshness, to_wire};
use crate::audit;
use crate::kill_switch::{Known, Switch};
use crate::ledger::book::Holder;
use crate::retry::jittered;
use crate::shared_state::Outbound;
use crate::shared_state::{LeaderState, PolicyState, Proof, Term};

/// How long a gateway may take to send its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a stream checks that its pod still exists.
const POD_CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// How long before the token expires a stream is ended, so that the gateway reconnects with a new token.
const TOKEN_MARGIN: Duration = Duration::from_secs(30);
/// Maximum number of concurrent ledger requests per stream. At the limit, the stream is not read.
const MAX_LEDGER_REQUESTS: usize = 64;
/// Maximum number of unacknowledged reports per stream. They wait for the next batch, one for each lease of the gateway,
/// and must not keep lease requests from being read.
const MAX_REPORTS: usize = 1024;
/// Number of pushed policies whose acknowledgement is still recognised.
const MAX_PUSHED: usize = 8;

struct ControlStream {
    hub: Arc<Hub>,
    leader: LeaderState,
    gateway: GatewayPod,
    holder: Holder,
    /// Number of the stream: a newer one of the same pod has a higher one.
    number: u64,
    outbound: Outbound,
    /// The form of policies that the gateway understands.
    form: Form,
    /// Whether the gateway obeys the kill switch. An older one does not.
    obeys_kill_switch: bool,
    /// Whether the gateway admits calls only of principals whose home it is. An older one admits all.
    respects_homes: bool,
    /// The state of the kill switch that was sent last.
    switch: Option<Switch>,
    /// Generation of the last policy that is too large for the gateway.
    too_large: Option<u64>,
    /// Generation and digest of the policies that were pushed, oldest first.
    pushed: VecDeque<(u64, Digest)>,
    /// Generation and digest of the policy that the gateway enforced when it connected, until that is the published one.
    claimed: Option<(u64, Digest)>,
    /// Generation that the gateway enforces, as recorded in the tenant's state.
    enforced: u64,
    /// Last proof that was sent.
    proved: Option<Proof>,
    /// Ledger requests in progress.
    work: JoinSet<()>,
    /// Reports that are not acknowledged yet.
    reports: JoinSet<()>,
    stuck: AlarmLimit,
    loops: AlarmLimit,
    /// Whether the gateway knows which reports of servers are kept.
    knows_reports: bool,
    /// UIDs of the servers whose kept reports were requested. Each is sent once.
    requested_reports: HashSet<String>,
}

/// Runs a stream until it ends.
pub(super) async fn run(
    hub: Arc<Hub>,
    leader: LeaderState,
    gateway: GatewayPod,
    mut inbound: Streaming<FromGateway>,
    outbound: Outbound,
) {
    let ended = leader.ended.clone();
    let hello = tokio::select! {
        () = ended.cancelled() => Err(not_leader()),
        hello = tokio::time::timeout(HELLO_TIMEOUT, exchange_hello(&mut inbound, &outbound, leader.homes.term(), &gateway)) =>
            hello.unwrap_or_else(|_| Err(Status::deadline_exceeded("no hello was received in time"))),
    };
    let hello = match hello {
        Ok(hello) => hello,
        Err(status) => {
            let _ = outbound.send(Err(status)).await;
            return;
        }
    };
    let registration = hub.shared_state.streams.register(&gateway.pod_uid, outbound.clone());
    tracing::info!(tenant = gateway.tenant, pod = gateway.pod, generation = hello.generation, "a gateway connected");
    let knows_names = hello.features.iter().any(|feature| feature == OTHER_AUDIENCES);
    hub.shared_state.update_tenant_state(&gateway.tenant_uid, |state| {
        state.connect_gateway(&gateway.pod, &hello.epoch, knows_names);
    });
    let holder = Holder { pod_uid: gateway.pod_uid.clone(), epoch: hello.epoch.clone() };
    let (pushed, work, reports) = (VecDeque::new(), JoinSet::new(), JoinSet::new());
    let mut stream = ControlStream {
        hub: Arc::clone(&hub),
        leader,
        gateway: gateway.clone(),
        holder,
        number: registration.number,
        outbound,
        form: Form::for_reader(&hello.features),
        obeys_kill_switch: hello.obeys_kill_switch,
        respects_homes: hello.respects_homes,
        switch: None,
        too_large: None,
        pushed,
        claimed: None,
        enforced: 0,
        proved: None,
        work,
        reports,
        stuck: AlarmLimit::default(),
        loops: AlarmLimit::default(),
        knows_reports: false,
        requested_reports: HashSet::new(),
    };
    let status = tokio::select! {
        () = ended.cancelled() => Some(not_leader()),
        () = registration.replaced.cancelled() => Some(Status::aborted("a newer stream of this pod replaced this one")),
        status = stream.serve(&hello, &mut inbound) => status,
    };
    if hub.shared_state.streams.deregister(&gateway.pod_uid, registration.number) && !ended.is_cancelled() {
        hub.shared_state.update_tenant_state(&gateway.tenant_uid, |state| {
            state.remove_gateway(&gateway.pod);
        });
    }
    tracing::info!(
        tenant = gateway.tenant,
        pod = gateway.pod,
        status = ?status.as_ref().map(Status::message),
        "the control stream of a gateway ended"
    );
    if let Some(status) = status {
        // The gateway may already have disconnected.
        let _ = stream.outbound.try_send(Err(status));
    }
}

/// Receives the gateway's hello, negotiates the protocol version and sends the operator's hello.
async fn exchange_hello(
    inbound: &mut Streaming<FromGateway>,
    outbound: &Outbound,
    term: Term,
    gateway: &GatewayPod,
) -> Result<GatewayHello, Status> {
    let Some(FromGateway { message: Some(from_gateway::Message::Hello(hello)) }) = inbound.message().await? else {
        return Err(Status::invalid_argument("the first message must be a hello"));
    };
    let Some(version) = negotiate(hello.min_version, hello.max_version) else {
        return Err(Status::failed_precondition("gateway and operator have no protocol version in common"));
    };
    if hello.epoch.is_empty() || hello.epoch.len() > 128 {
        return Err(Status::invalid_argument("the epoch must have 1 to 128 bytes"));
    }
    let answer =
        message(from_operator::Message::Hello(OperatorHello { version, term, pod_uid: gateway.pod_uid.clone() }));
    outbound.send(Ok(answer)).await.map_err(|_| Status::cancelled("the gateway disconnected"))?;
    Ok(hello)
}

impl ControlStream {
    /// Serves the stream until it ends. Returns the status to end it with; none if the gateway ended it or its token
    /// expires.
    async fn serve(&mut self, hello: &GatewayHello, inbound: &mut Streaming<FromGateway>) -> Option<Status> {
        let shared = Arc::clone(&self.hub.shared_state);
        if shared.policies.raise_floor(&self.gateway.tenant_uid, hello.generation) {
            shared.request_compilation(&self.gateway.tenant_uid);
        }
        if let Some(digest) = Digest::from_slice(&hello.digest) {
            // The policy that the gateway already enforces need not be pushed again.
            self.pushed.push_back((hello.generation, digest));
            self.claimed = Some((hello.generation, digest));
        }
        if !self.respects_homes {
            self.leader.homes.note_earlier(&self.gateway.tenant_uid, &self.gateway.pod_uid);
        }
        let (ledger, holder) = (Arc::clone(&self.leader.ledger), self.holder.clone());
        self.work.spawn(async move { ledger.forfeit_pod(&holder.pod_uid, Some(&holder.epoch)).await });
        let mut policy_state = shared.policies.subscribe(&self.gateway.tenant_uid);
        let mut switch = shared.kill_switch.subscribe();
        self.send_switch(&mut switch).await?;
        self.catch_up(&mut policy_state, &switch).await?;
        if self.enforced == 0 {
            self.set_enforced(0);
        }
        let ends_at =
            Instant::now() + self.gateway.token_valid_for.saturating_sub(TOKEN_MARGIN).max(Duration::from_secs(1));
        let mut check = Instant::now() + jittered(POD_CHECK_INTERVAL);
        loop {
            tokio::select! {
                received = inbound.message(),
                    if self.work.len() < MAX_LEDGER_REQUESTS && self.reports.len() < MAX_REPORTS => match received {
                    Ok(Some(received)) => self.receive(received, &policy_state),
                    // The gateway ended the stream, or the connection failed.
                    Ok(None) | Err(_) => return None,
                },
                changed = policy_state.changed() => {
                    if changed.is_err() {
                        let deleted = Status::permission_denied("the tenant was deleted");
                        return Some(if self.leader.ended.is_cancelled() { not_leader() } else { deleted });
                    }
                    self.catch_up(&mut policy_state, &switch).await?;
                }
                // After a policy, which tells the gateway of which servers it needs one.
                kept = kept_reports(&self.hub, &self.gateway), if !self.knows_reports && !self.pushed.is_empty() => {
                    self.knows_reports = true;
                    self.outbound.send(Ok(message(from_operator::Message::KeptServerReports(kept)))).await.ok()?;
                }
                // The sender is never dropped.
                Ok(()) = switch.changed() => self.send_switch(&mut switch).await?,
                Some(_) = self.work.join_next() => {}
                Some(_) = self.reports.join_next() => {}
                () = tokio::time::sleep_until(ends_at) => return None,
                () = tokio::time::sleep_until(check) => {
                    match self.hub.gateways.check_again(&self.gateway).await {
                        // If the API server cannot be reached, nothing is known about the pod.
                        Ok(()) | Err(AuthError::Api { .. }) => check = Instant::now() + jittered(POD_CHECK_INTERVAL),
                        Err(error) => return Some(error.status()),
                    }
                }
            }
        }
    }

    /// Sends the state of the kill switch, if it is known and was not sent before. Returns none if the gateway has
    /// disconnected.
    async fn send_switch(&mut self, switch: &mut watch::Receiver<Option<Known>>) -> Option<()> {
        let Some(known) = switch.borrow_and_update().clone() else { return Some(()) };
        if self.switch.as_ref() != Some(&known.switch) {
            self.outbound.send(Ok(message(from_operator::Message::KillSwitch(to_wire(&known))))).await.ok()?;
            self.switch = Some(known.switch);
        }
        Some(())
    }

    /// Sends the newest policy and proof, unless they were sent before. Returns none if the gateway has disconnected.
    async fn catch_up(
        &mut self,
        policy_state: &mut watch::Receiver<PolicyState>,
        switch: &watch::Receiver<Option<Known>>,
    ) -> Option<()> {
        let PolicyState { published, proof } = policy_state.borrow_and_update().clone();
        let Some(published) = published else { return Some(()) };
        let generation = published.policy.generation;
        let Some(encoded) = published.in_form(self.form) else {
            // Without the newest policy, the gateway ignores its proofs, and soon refuses all calls.
            if self.too_large.replace(generation) == Some(generation) {
                return Some(());
            }
            self.refused(generation, "it is older than the operator, and cannot read a policy of this size; update it");
            return Some(());
        };
        let digest = encoded.digest;
        if self.pushed.back() != Some(&(generation, digest)) {
            let push = PolicyPush { generation, policy: encoded.bytes.clone(), digest: digest.to_vec() };
            self.outbound.send(Ok(message(from_operator::Message::Policy(push)))).await.ok()?;
            self.pushed.push_back((generation, digest));
            if self.pushed.len() > MAX_PUSHED {
                self.pushed.pop_front();
            }
        } else if self.claimed == Some((generation, digest)) {
            self.claimed = None;
            self.set_enforced(generation);
        }
        if let Some(proof) = proof.filter(|proof| self.proved != Some(*proof)) {
            self.proved = Some(proof);
            let fresh = freshness(proof, switch.borrow().as_ref(), self.obeys_kill_switch);
            if let Some(fresh) = fresh {
                self.outbound.send(Ok(message(from_operator::Message::Freshness(fresh)))).await.ok()?;
            }
        }
        Some(())
    }

    /// Writes an Event, if there is one.
    fn publish(&mut self, alarm: Option<Alarm>) {
        if let Some(alarm) = alarm {
            let hub = Arc::clone(&self.hub);
            self.work.spawn(async move { alarm.publish(&*hub.alarms).await });
        }
    }

    /// Handles a message from the gateway.
    fn receive(&mut self, received: FromGateway, policy_state: &watch::Receiver<PolicyState>) {
        let (ledger, gateway, holder) = (Arc::clone(&self.leader.ledger), self.gateway.clone(), self.holder.clone());
        match received.message {
            Some(from_gateway::Message::Ack(ack)) => self.acknowledged(&ack),
            Some(from_gateway::Message::LeaseRequest(request)) => {
                let policy = policy_state.borrow().published.clone();
                let (hub, outbound) = (Arc::clone(&self.hub), self.outbound.clone());
                self.work.spawn(async move {
                    spend::answer_lease_request(
                        ledger,
                        gateway,
                        holder,
                        policy,
                        request,
                        &hub.shared_state.streams,
                        outbound,
                    )
                    .await;
                });
            }
            Some(from_gateway::Message::Spend(report)) => {
                let policy = policy_state.borrow().published.clone();
                let outbound = self.outbound.clone();
                self.reports.spawn(spend::settle_report(ledger, gateway, holder, policy, report, outbound));
            }
            Some(from_gateway::Message::AuditHead(head)) => {
                if let (Some(audit), Some(head)) = (&self.hub.audit, audit::from_wire(&head)) {
                    audit.record(&self.gateway, head);
                }
            }
            Some(from_gateway::Message::Stuck(report)) => {
                let policy = policy_state.borrow().published.clone();
                let alarm = policy.and_then(|policy| self.stuck.stuck(Instant::now(), &policy.policy, &report));
                self.publish(alarm);
            }
            Some(from_gateway::Message::Loop(report)) => {
                let policy = policy_state.borrow().published.clone();
                let alarm = policy.and_then(|policy| self.loops.refused_loop(Instant::now(), &policy.policy, &report));
                self.publish(alarm);
            }
            Some(from_gateway::Message::HomeBeat(beat)) => {
                self.answer_beat(beat, policy_state);
            }
            Some(from_gateway::Message::SeenServerReport(seen)) => self.keep_report(seen, policy_state),
            Some(from_gateway::Message::WantedServerReports(wanted)) => self.give_reports(wanted, policy_state),
            Some(from_gateway::Message::PublicCertificates(certificates)) => self.set_served(certificates),
            // A second hello has no effect. A message of an unknown kind belongs to a newer protocol version.
            Some(from_gateway::Message::Hello(_)) | None => {}
        }
    }

    /// Keeps the report of a server.
    fn keep_report(&mut self, seen: SeenServerReport, policy_state: &watch::Receiver<PolicyState>) {
        let Some(published) = policy_state.borrow().published.clone() else { return };
        let (hub, gateway, outbound) = (Arc::clone(&self.hub), self.gateway.clone(), self.outbound.clone());
        self.work.spawn(async move {
            if let Some(reports) = &hub.reports {
                server_reports::keep(&**reports, gateway, published.policy, seen, outbound).await;
            }
        });
    }

    /// Sends the kept reports of servers of which the gateway has none.
    fn give_reports(&mut self, wanted: WantedServerReports, policy_state: &watch::Receiver<PolicyState>) {
        let Some(published) = policy_state.borrow().published.clone() else { return };
        let mut wanted: HashSet<String> = wanted.server_uids.into_iter().collect();
        let of_tenant: HashSet<&str> = published.policy.servers.iter().map(|server| server.uid.as_str()).collect();
        wanted.retain(|uid| of_tenant.contains(uid.as_str()) && self.requested_reports.insert(uid.clone()));
        if wanted.is_empty() {
            return;
        }
        let (hub, gateway, outbound) = (Arc::clone(&self.hub), self.gateway.clone(), self.outbound.clone());
        self.work.spawn(async move {
            if let Some(reports) = &hub.reports {
                server_reports::give(&**reports, gateway, wanted, outbound).await;
            }
        });
    }

    /// Records in the tenant's state which public names the gateway serves.
    fn set_served(&self, PublicCertificates { served }: PublicCertificates) {
        // More names than a policy can have come from no gateway of ours.
        let served = served.into_iter().take(MAX_OTHER_AUDIENCES).map(|one| (one.hostname, one.not_after)).collect();
        self.hub.shared_state.update_tenant_state(&self.gateway.tenant_uid, |state| {
            state.set_served(&self.gateway.pod, served);
        });
    }

    /// Answers what the gateway admits calls by. Without a policy there are none.
    fn answer_beat(&self, beat: HomeBeat, policy_state: &watch::Receiver<PolicyState>) {
        let Some(published) = policy_state.borrow().published.clone() else { return };
        let (homes, streams) = (&self.leader.homes, &self.hub.shared_state.streams);
        let from = homes::Sender { gateway: &self.gateway, holder: &self.holder, stream: self.number };
        let look = homes::answer_beat(homes, streams, &published, from, beat, &self.outbound, &*self.hub.gateways);
        if let Some(look) = look {
            // Goes on if this stream ends, because other gateways wait for what it finds.
            tokio::spawn(homes::look(Arc::clone(&self.hub), Arc::clone(homes), self.gateway.tenant_uid.clone(), look));
        }
    }

    /// Records the generation that the gateway enforces, or why it refused the policy.
    fn acknowledged(&mut self, ack: &PolicyAck) {
        let pushed = self.pushed.iter().find(|(generation, _)| *generation == ack.generation);
        let problem = match pushed {
            None => return,
            Some(_) if !ack.error.is_empty() => ack.error.chars().take(512).collect(),
            Some((_, digest)) if Digest::from_slice(&ack.digest) != Some(*digest) => {
                "its digest differs from the digest of the policy that was sent".to_owned()
            }
            Some(_) => return self.set_enforced(ack.generation),
        };
        self.refused(ack.generation, &problem);
    }

    /// Records that the gateway does not enforce a policy, and why.
    fn refused(&self, generation: u64, problem: &str) {
        tracing::error!(
            tenant = self.gateway.tenant,
            pod = self.gateway.pod,
            generation,
            problem,
            "a gateway refused the policy"
        );
        let text = format!("gateway {} refused the policy: {problem}", self.gateway.pod);
        self.hub.shared_state.update_tenant_state(&self.gateway.tenant_uid, |state| {
            state.error = Some((ConditionReason::PolicyRefused, text));
        });
    }

    /// Records in the tenant's state which generation this gateway enforces.
    fn set_enforced(&mut self, generation: u64) {
        self.enforced = generation;
        self.hub.shared_state.update_tenant_state(&self.gateway.tenant_uid, |state| {
            state.set_enforced(&self.gateway.pod, generation);
        });
    }
}

/// Waits until it is known which reports of the tenant's servers are kept. Never returns if none are.
async fn kept_reports(hub: &Hub, gateway: &GatewayPod) -> KeptServerReports {
    match &hub.reports {
        Some(reports) => reports.kept(gateway).await,
        None => std::future::pending().await,
    }
}
