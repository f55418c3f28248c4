//! One stream: hello first, then policies, proofs and acknowledgements until either side ends it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_control::Digest;
use mcp_fleet_control::version::{negotiate, not_leader};
use mcp_fleet_control::wire::{
    Freshness, FromGateway, GatewayHello, OperatorHello, PolicyAck, PolicyPush, from_gateway, from_operator,
};
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::GatewayStatus;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::auth::{AuthError, Caller, check_pod};
use super::grant::{self, message};
use crate::context::Context;
use crate::ledger::book::Holder;
use crate::retry::jittered;
use crate::shared_state::Outbound;
use crate::shared_state::{Leading, Outlook, Proof};

/// How long a gateway may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// How often it is checked that the pod is still there.
const CHECK_EVERY: Duration = Duration::from_secs(15);
/// How long before its token ends a stream is ended, so that the next one comes with a new token.
const MARGIN: Duration = Duration::from_secs(30);
/// Requests to the ledger at a time; while there are more, nothing is read from the stream.
const IN_FLIGHT: usize = 64;
/// Pushed policies whose acknowledgement is still understood.
const REMEMBERED: usize = 8;
/// Gateways that stand in a tenant's status.
const SHOWN: usize = 64;

struct Stream {
    ctx: Arc<Context>,
    leading: Leading,
    caller: Caller,
    holder: Holder,
    outbound: Outbound,
    /// What was pushed: generation and digest, the newest last.
    pushed: VecDeque<(u64, Digest)>,
    proved: Option<Proof>,
    work: JoinSet<()>,
}

/// Runs a stream to its end.
pub(super) async fn run(
    ctx: Arc<Context>,
    leading: Leading,
    caller: Caller,
    mut inbound: Streaming<FromGateway>,
    outbound: Outbound,
) {
    let ended = leading.ended.clone();
    let greeting = tokio::select! {
        () = ended.cancelled() => Err(not_leader()),
        greeting = tokio::time::timeout(HELLO, greet(&mut inbound, &outbound)) =>
            greeting.unwrap_or_else(|_| Err(Status::deadline_exceeded("no hello came"))),
    };
    let hello = match greeting {
        Ok(hello) => hello,
        Err(status) => {
            let _ = outbound.send(Err(status)).await;
            return;
        }
    };
    let place = ctx.shared_state.streams.enter(&caller.pod_uid, outbound.clone());
    tracing::info!(tenant = caller.tenant, pod = caller.pod, generation = hello.generation, "a gateway connected");
    let holder = Holder { pod_uid: caller.pod_uid.clone(), epoch: hello.epoch.clone() };
    let (pushed, work) = (VecDeque::new(), JoinSet::new());
    let mut stream =
        Stream { ctx: Arc::clone(&ctx), leading, caller: caller.clone(), holder, outbound, pushed, proved: None, work };
    let status = tokio::select! {
        () = ended.cancelled() => Some(not_leader()),
        () = place.replaced.cancelled() => Some(Status::aborted("a newer stream of this pod has come")),
        status = stream.talk(&hello, &mut inbound) => status,
    };
    if ctx.shared_state.streams.leave(&caller.pod_uid, place.number) && !ended.is_cancelled() {
        ctx.shared_state.update_tenant_state(&caller.tenant_uid, |state| {
            state.gateways.retain(|gateway| gateway.pod != caller.pod);
        });
    }
    tracing::info!(tenant = caller.tenant, pod = caller.pod, status = ?status.as_ref().map(Status::message), "a gateway's stream ended");
    if let Some(status) = status {
        // Nobody may be there to read it.
        let _ = stream.outbound.try_send(Err(status));
    }
}

async fn greet(inbound: &mut Streaming<FromGateway>, outbound: &Outbound) -> Result<GatewayHello, Status> {
    let Some(FromGateway { message: Some(from_gateway::Message::Hello(hello)) }) = inbound.message().await? else {
        return Err(Status::invalid_argument("the first message must be a hello"));
    };
    let Some(version) = negotiate(hello.min_version, hello.max_version) else {
        return Err(Status::failed_precondition("no common version of the protocol"));
    };
    if hello.epoch.is_empty() || hello.epoch.len() > 128 {
        return Err(Status::invalid_argument("the epoch must have 1 to 128 bytes"));
    }
    let answer = message(from_operator::Message::Hello(OperatorHello { version }));
    outbound.send(Ok(answer)).await.map_err(|_| Status::cancelled("the gateway went away"))?;
    Ok(hello)
}

impl Stream {
    /// Talks until the stream ends; answers with what the gateway is told at the end.
    async fn talk(&mut self, hello: &GatewayHello, inbound: &mut Streaming<FromGateway>) -> Option<Status> {
        let shared = Arc::clone(&self.ctx.shared_state);
        if shared.policies.raise_floor(&self.caller.tenant_uid, hello.generation) {
            shared.request_compilation(&self.caller.tenant_uid);
        }
        if let Some(digest) = Digest::from_slice(&hello.digest) {
            // What it says it enforces need not be pushed again.
            self.pushed.push_back((hello.generation, digest));
        }
        self.show(0);
        let (ledger, holder) = (Arc::clone(&self.leading.ledger), self.holder.clone());
        self.work.spawn(async move { ledger.forfeit_pod(&holder.pod_uid, Some(&holder.epoch)).await });
        let mut outlook = shared.policies.follow(&self.caller.tenant_uid);
        self.catch_up(&mut outlook, true).await?;
        let expires = Instant::now() + self.caller.good_for.saturating_sub(MARGIN).max(Duration::from_secs(1));
        let mut check = Instant::now() + jittered(CHECK_EVERY);
        loop {
            tokio::select! {
                received = inbound.message(), if self.work.len() < IN_FLIGHT => match received {
                    Ok(Some(received)) => self.receive(received, &outlook),
                    // It hung up, or the connection broke.
                    Ok(None) | Err(_) => return None,
                },
                changed = outlook.changed() => {
                    if changed.is_err() {
                        let gone = Status::permission_denied("the tenant is gone");
                        return Some(if self.leading.ended.is_cancelled() { not_leader() } else { gone });
                    }
                    self.catch_up(&mut outlook, false).await?;
                }
                Some(_) = self.work.join_next() => {}
                () = tokio::time::sleep_until(expires) => return None,
                () = tokio::time::sleep_until(check) => {
                    match check_pod(&self.ctx, &self.caller).await {
                        // An API server that is away says nothing about the pod.
                        Ok(()) | Err(AuthError::Api { .. }) => check = Instant::now() + jittered(CHECK_EVERY),
                        Err(gone) => return Some(gone.status()),
                    }
                }
            }
        }
    }

    /// Sends what is newer than what was sent. None: the gateway is gone.
    async fn catch_up(&mut self, outlook: &mut watch::Receiver<Outlook>, first: bool) -> Option<()> {
        let Outlook { published, proof } = outlook.borrow_and_update().clone();
        let Some(published) = published else { return Some(()) };
        let (generation, digest) = (published.policy.generation, published.encoded.digest);
        if self.pushed.back() != Some(&(generation, digest)) {
            let push = PolicyPush { generation, policy: published.encoded.bytes.clone(), digest: digest.to_vec() };
            self.outbound.send(Ok(message(from_operator::Message::Policy(push)))).await.ok()?;
            self.pushed.push_back((generation, digest));
            if self.pushed.len() > REMEMBERED {
                self.pushed.pop_front();
            }
        } else if first {
            self.show(generation);
        }
        if let Some(proof) = proof.filter(|proof| self.proved != Some(*proof)) {
            self.proved = Some(proof);
            let age_ms = u32::try_from(proof.read.elapsed().as_millis()).unwrap_or(u32::MAX);
            let fresh = Freshness { generation: proof.generation, age_ms };
            self.outbound.send(Ok(message(from_operator::Message::Freshness(fresh)))).await.ok()?;
        }
        Some(())
    }

    fn receive(&mut self, received: FromGateway, outlook: &watch::Receiver<Outlook>) {
        let (ledger, caller, holder) = (Arc::clone(&self.leading.ledger), self.caller.clone(), self.holder.clone());
        match received.message {
            Some(from_gateway::Message::Ack(ack)) => self.acknowledged(&ack),
            Some(from_gateway::Message::LeaseRequest(request)) => {
                let policy = outlook.borrow().published.clone();
                let (ctx, outbound) = (Arc::clone(&self.ctx), self.outbound.clone());
                self.work.spawn(async move {
                    grant::lease(ledger, caller, holder, policy, request, &ctx.shared_state.streams, outbound).await;
                });
            }
            Some(from_gateway::Message::Spend(report)) => {
                self.work.spawn(grant::report(ledger, caller, holder, report, self.outbound.clone()));
            }
            // A second hello changes nothing; a message of a newer version is not for us.
            Some(from_gateway::Message::Hello(_)) | None => {}
        }
    }

    /// Notes what the gateway enforces, or why it does not.
    fn acknowledged(&self, ack: &PolicyAck) {
        let pushed = self.pushed.iter().find(|(generation, _)| *generation == ack.generation);
        let trouble = match pushed {
            None => return,
            Some(_) if !ack.error.is_empty() => ack.error.chars().take(512).collect(),
            Some((_, digest)) if Digest::from_slice(&ack.digest) != Some(*digest) => {
                "it understood another policy than was sent".to_owned()
            }
            Some(_) => return self.show(ack.generation),
        };
        tracing::error!(
            tenant = self.caller.tenant,
            pod = self.caller.pod,
            generation = ack.generation,
            trouble,
            "a gateway refused the policy"
        );
        let text = format!("gateway {} refused generation {}: {trouble}", self.caller.pod, ack.generation);
        self.ctx.shared_state.update_tenant_state(&self.caller.tenant_uid, |state| {
            state.error = Some((ConditionReason::PolicyRefused, text));
        });
    }

    /// Shows in the tenant's state which generation this gateway enforces.
    fn show(&self, generation: u64) {
        let pod = &self.caller.pod;
        let policy_generation = i64::try_from(generation).unwrap_or(i64::MAX);
        self.ctx.shared_state.update_tenant_state(&self.caller.tenant_uid, |state| {
            if let Some(gateway) = state.gateways.iter_mut().find(|gateway| gateway.pod == *pod) {
                gateway.policy_generation = policy_generation;
            } else if state.gateways.len() < SHOWN {
                state.gateways.push(GatewayStatus { pod: pod.clone(), policy_generation });
                state.gateways.sort_by(|a, b| a.pod.cmp(&b.pod));
            }
            let refused = state.error.as_ref().is_some_and(|(reason, _)| *reason == ConditionReason::PolicyRefused);
            if refused && state.current() == state.gateways.len() {
                state.error = None;
            }
        });
    }
}
