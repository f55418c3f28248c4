//! One task for each tenant: gather, compile, publish, tell. A tenant whose API calls hang holds up no other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::condition::ConditionReason;
use tokio::sync::{Notify, watch};

use super::inputs::{fingerprint, gather};
use super::snapshot::{COMPONENT, PublishError, Snapshots};
use crate::compile::{self, Compiled, Previous};
use crate::context::Context;
use crate::control::{Proof, Published};
use crate::error;
use crate::jitter::jittered;
use crate::labels;
use crate::verdict::Kind;
use crate::world::older_claim;

/// How long changes are gathered before they are compiled.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// What wakes a worker.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    /// Something of the tenant changed.
    pub(super) changed: Arc<Notify>,
    /// A Secret of its snapshot was touched, maybe by somebody else.
    pub(super) touched: Arc<AtomicBool>,
    /// The stores were proved to be current, as of a moment.
    pub(super) proven: watch::Receiver<Option<Instant>>,
    /// When this replica began to lead.
    pub(super) since: Instant,
}

/// What one tenant's worker knows.
pub(super) struct Worker {
    ctx: Arc<Context>,
    uid: String,
    snapshots: Option<Snapshots>,
    previous: Option<Previous>,
    /// What was compiled last, and whether it stands in the snapshot.
    compiled: Option<u64>,
    recheck_at: Option<i64>,
    judged: BTreeSet<(Kind, String)>,
    /// Publishing waits for a proof as of this moment or later: at the start, and after another replica has published.
    unproven: Option<Instant>,
    /// The snapshot was changed or removed by somebody else: it is written again, whatever was compiled.
    damaged: bool,
    touched: Arc<AtomicBool>,
}

/// Runs until its tenant is gone.
pub(super) async fn run(ctx: Arc<Context>, uid: String, mut signals: Signals) {
    let mut worker = Worker {
        ctx,
        uid,
        snapshots: None,
        previous: None,
        compiled: None,
        recheck_at: None,
        judged: BTreeSet::new(),
        unproven: Some(signals.since),
        damaged: false,
        touched: Arc::clone(&signals.touched),
    };
    let mut failures = 0_u32;
    let mut retry: Option<Duration> = None;
    while worker.ctx.world.tenant_by_uid(&worker.uid).is_some() {
        let proof = tokio::select! {
            () = signals.changed.notified() => {
                tokio::time::sleep(DEBOUNCE).await;
                None
            }
            proven = signals.proven.changed() => {
                if proven.is_err() {
                    return;
                }
                *signals.proven.borrow_and_update()
            }
            () = pause(retry) => None,
            () = pause(worker.due()) => None,
        };
        let outcome = worker.pass(proof).await;
        worker.tell(&outcome);
        match outcome {
            Ok(()) => (failures, retry) = (0, None),
            Err(error) => {
                let pause = PAUSES.0.saturating_mul(1 << failures.min(8)).min(PAUSES.1);
                (failures, retry) = (failures.saturating_add(1), Some(jittered(pause)));
                // A namespace that is not there or not open to us yet is no news: the tenant's controller is at it.
                let waiting = matches!(error, PublishError::NoNamespace | PublishError::NotLetIn) && failures < 6;
                if !waiting {
                    tracing::warn!(tenant = worker.uid, error = error::chain(&error), "failed to publish a policy");
                }
            }
        }
    }
    worker.forget();
}

/// Waits that long; without a time, for ever.
async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl Worker {
    /// How long until a revocation becomes due.
    fn due(&self) -> Option<Duration> {
        let seconds = self.recheck_at?.saturating_sub(Timestamp::now().as_second()).clamp(0, 3600);
        Some(Duration::from_millis(u64::try_from(seconds).unwrap_or(0) * 1000 + 50))
    }

    /// Brings the published policy up to what the stores hold; with a proof, tells the streams that it is fresh.
    async fn pass(&mut self, proof: Option<Instant>) -> Result<(), PublishError> {
        let ctx = Arc::clone(&self.ctx);
        if !ctx.leadership.is_leader() || self.unproven.is_some_and(|since| proof.is_none_or(|read| read < since)) {
            return Ok(());
        }
        let Some(tenant) = ctx.world.tenant_by_uid(&self.uid) else { return Ok(()) };
        if older_claim(&tenant, &ctx.world.tenants.state()).is_some() {
            return Ok(());
        }
        if self.touched.swap(false, Ordering::Relaxed)
            && let Some(snapshots) = &self.snapshots
            && !snapshots.untouched().await?
        {
            self.snapshots = None;
        }
        if self.snapshots.is_none() {
            self.read(&tenant).await?;
        }
        if self.previous.is_some() && tenant.metadata.deletion_timestamp.is_none() {
            // They were made before anything was published. Reading them here spares a new leader the wait for the
            // tenant's controller.
            if let Err(error) = ctx.keys.get_or_create(&tenant.name_any(), &self.uid).await {
                tracing::warn!(tenant = self.uid, error = error::chain(&error), "failed to read the tenant's keys");
            }
        }
        // Otherwise its controller makes the keys, and tells us.
        let Some(inputs) = gather(&ctx, &tenant) else { return Ok(()) };
        let print = fingerprint(&inputs);
        let due = self.recheck_at.is_some_and(|at| at <= inputs.now);
        let floor = ctx.control.hub.floor(&self.uid);
        let generation = self.previous.as_ref().map_or(0, |previous| previous.policy.generation);
        if self.compiled != Some(print) || due || floor > generation || self.damaged {
            let compiled = compile::compile(&inputs, self.previous.as_ref());
            self.publish(compiled, floor).await?;
            self.compiled = Some(print);
            self.damaged = false;
        }
        self.unproven = None;
        if let (Some(read), Some(previous)) = (proof, &self.previous) {
            ctx.control.hub.prove(&self.uid, Proof { generation: previous.policy.generation, read });
        }
        Ok(())
    }

    async fn read(&mut self, tenant: &MCPTenant) -> Result<(), PublishError> {
        let labels = labels::of_tenant(COMPONENT, &tenant.name_any(), &self.uid);
        let (snapshots, found) = Snapshots::read(self.ctx.client.clone(), &tenant.runtime_namespace(), labels).await?;
        let ours = self.previous.as_ref().map(|previous| previous.policy.generation);
        match (found, ours) {
            // Ours is known to have been published; what is there now was spoilt by somebody else.
            (Err(_), Some(_)) => self.damaged = true,
            (Err(error), None) => return Err(PublishError::Unreadable(error)),
            (Ok(Some(found)), _) if found.policy.tenant_uid == self.uid && Some(found.policy.generation) >= ours => {
                self.previous = Some(found);
            }
            // Nothing, something older, or what was left by a tenant of the same name that is gone.
            (Ok(_), ours) => self.damaged = ours.is_some(),
        }
        self.snapshots = Some(snapshots);
        self.compiled = None;
        Ok(())
    }

    /// Publishes what was compiled, if it is another policy than before.
    async fn publish(&mut self, compiled: Compiled, floor: u64) -> Result<(), PublishError> {
        let Compiled { mut policy, scopes, verdicts, recheck_at } = compiled;
        let before = self.previous.as_ref().map_or(0, |previous| previous.policy.generation);
        policy.generation = before;
        let same = !self.damaged
            && floor <= before
            && self.previous.as_ref().is_some_and(|previous| previous.policy == policy);
        if !same {
            policy.generation = before.max(floor).saturating_add(1);
        }
        let encoded = mcp_fleet_control::encode(&policy);
        if !same {
            check(&encoded)?;
            let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
            if let Err(error) = snapshots.write(policy.generation, &encoded, &scopes).await {
                // It may or may not be written: only reading again can tell. After a conflict another replica may
                // know better, so that we have to prove first that we are current.
                self.snapshots = None;
                if matches!(error, PublishError::Conflict) {
                    self.unproven = Some(Instant::now());
                }
                return Err(error);
            }
            tracing::info!(tenant = policy.tenant, generation = policy.generation, "published a policy");
        }
        let control = &self.ctx.control;
        let (generation, digest) = (policy.generation, encoded.digest.to_string());
        let known = control.hub.published(&self.uid).map(|published| published.policy.generation);
        if known != Some(generation) {
            let published = Published { policy: Arc::new(policy.clone()), encoded: Arc::new(encoded) };
            control.hub.publish(&self.uid, published);
        }
        self.previous = Some(Previous { policy, scopes });
        self.recheck_at = recheck_at;
        control.update_tenant_state(&self.uid, |state| {
            state.generation = generation;
            state.digest = Some(digest);
        });
        let judged: BTreeSet<(Kind, String)> = verdicts.keys().cloned().collect();
        for (kind, uid) in self.judged.difference(&judged) {
            control.forget(*kind, uid);
        }
        for ((kind, uid), verdict) in verdicts {
            control.set_verdict(kind, &uid, verdict);
        }
        self.judged = judged;
        Ok(())
    }

    /// Leaves word of a failure, or that it is over.
    fn tell(&self, outcome: &Result<(), PublishError>) {
        let error = match outcome {
            Ok(()) | Err(PublishError::Conflict) => None,
            Err(error) => Some((ConditionReason::PolicyNotPublished, error::chain(error))),
        };
        self.ctx.control.update_tenant_state(&self.uid, |state| {
            let refused = state.error.as_ref().is_some_and(|(reason, _)| *reason == ConditionReason::PolicyRefused);
            if error.is_some() || !refused {
                state.error = error;
            }
        });
    }

    fn forget(&self) {
        let control = &self.ctx.control;
        for (kind, uid) in &self.judged {
            control.forget(*kind, uid);
        }
        control.hub.forget(&self.uid);
        control.forget_tenant(&self.uid);
    }
}

/// Reads the policy back and makes of it what a gateway does: what it would refuse is not published.
fn check(encoded: &mcp_fleet_control::EncodedPolicy) -> Result<(), PublishError> {
    let policy =
        mcp_fleet_control::decode(&encoded.bytes).map_err(|error| PublishError::Unenforceable(error.into()))?;
    mcp_fleet_policy::engine::Policy::new(policy).map_err(|error| PublishError::Unenforceable(error.into()))?;
    Ok(())
}
