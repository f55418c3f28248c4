//! One task per tenant, which compiles and publishes its policy and records what it contains of each object. A tenant
//! whose API calls hang does not delay the others. Start at [`Worker::reconcile`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_control::codec::expanded;
use mcp_fleet_control::snapshot::{CompressedPolicy, SnapshotError};
use mcp_fleet_core::labels;
use mcp_fleet_core::policy::compile::{Compiled, Previous, TenantInputs};
use mcp_fleet_core::policy::fit::{check_enforceable, fitting};
use mcp_fleet_core::retry::Backoff;
use mcp_fleet_core::shared_state::verdict::Kind;
use mcp_fleet_core::shared_state::{PolicyEntries, Proof, Published};
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_policy::model::{TenantPolicy, Uid, VerificationKey};
use tokio::sync::{Notify, watch};

use super::entries::{Known, addressed, changed, enforced, entries};
use super::inputs::{fingerprint, gather};
use super::later::{LaterPolicy, MESSAGE};
use super::rest::Rest;
use super::snapshot::{COMPONENT, Found, PublishError, SnapshotSecrets};
use crate::context::Context;
use crate::error;

/// How long changes are collected before they are compiled.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The first pause after a failure; jitter at most doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after a failure; jitter at most doubles it.
const LONGEST_PAUSE: Duration = Duration::from_secs(6);

/// Signals that wake a worker.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    /// An object of the tenant changed.
    pub(super) changed: Arc<Notify>,
    /// An object changed in a way that stops calls, for example a principal is suspended. The worker does not rest before
    /// it publishes that.
    pub(super) urgent: Arc<AtomicBool>,
    /// A Secret of the tenant's snapshot changed, possibly by another writer.
    pub(super) touched: Arc<AtomicBool>,
    /// Time as of which the cache was last proved to be current.
    pub(super) proven: watch::Receiver<Option<Instant>>,
    /// When this replica began to lead.
    pub(super) since: Instant,
}

/// State of one tenant's worker.
pub(super) struct Worker {
    pub(super) ctx: Arc<Context>,
    pub(super) uid: String,
    pub(super) snapshots: Option<SnapshotSecrets>,
    previous: Option<Previous>,
    /// The policy in force, if a later version compiled it.
    pub(super) later: Option<LaterPolicy>,
    /// The objects that gateways enforce as they were written when the policy of a later version was found: kind, UID and
    /// generation.
    pub(super) enforced_by_later: Option<BTreeSet<(Kind, Uid, i64)>>,
    /// Fingerprint of the inputs of the last compiled policy, if that is published.
    published_fingerprint: Option<u64>,
    recheck_at: Option<i64>,
    /// What the published policy contains of each object; none before this worker published it.
    entries: Option<Arc<PolicyEntries>>,
    /// Whether statuses tell which objects the published policy contains, until this worker knows. They do not if another
    /// writer replaced the policy meanwhile.
    trusts_statuses: bool,
    /// Publishing waits for a proof as of this time or later: at the start, and after another replica published.
    needs_proof_since: Option<Instant>,
    /// Whether another writer changed or removed the snapshot, so that it must be written even if the policy is
    /// unchanged.
    damaged: bool,
    /// Whether the last reconcile compiled the policy.
    compiled: bool,
    touched: Arc<AtomicBool>,
}

/// Runs the worker of a tenant until the tenant is gone.
pub(super) async fn run(ctx: Arc<Context>, uid: String, mut signals: Signals) {
    let mut worker = Worker {
        ctx,
        uid,
        snapshots: None,
        previous: None,
        later: None,
        enforced_by_later: None,
        published_fingerprint: None,
        recheck_at: None,
        entries: None,
        trusts_statuses: true,
        needs_proof_since: Some(signals.since),
        damaged: false,
        compiled: false,
        touched: Arc::clone(&signals.touched),
    };
    let (mut failures, mut backoff) = (0_u32, Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
    let mut retry: Option<Duration> = None;
    let mut rest = Rest::default();
    // A proof since this replica leads is enough, also for a tenant that was created later.
    signals.proven.mark_changed();
    while worker.ctx.cache.has_tenant(&worker.uid) {
        let mut is_urgent = false;
        let proof = tokio::select! {
            () = signals.changed.notified() => {
                tokio::time::sleep(DEBOUNCE).await;
                is_urgent = rest.until_over(&signals).await;
                None
            }
            proven = signals.proven.changed() => {
                if proven.is_err() {
                    return;
                }
                *signals.proven.borrow_and_update()
            }
            () = sleep(retry) => None,
            () = sleep(worker.until_recheck()) => None,
        };
        let started = tokio::time::Instant::now();
        let outcome = worker.reconcile(proof, is_urgent).await;
        if std::mem::take(&mut worker.compiled) {
            rest.begin(started.elapsed());
        }
        worker.set_error(&outcome);
        match outcome {
            Ok(()) => {
                (failures, retry) = (0, None);
                backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            }
            Err(error) => {
                (failures, retry) = (failures.saturating_add(1), Some(backoff.next_pause()));
                // For a while it is normal that the namespace or the access to it is missing: the tenant's controller
                // is creating them.
                let expected = matches!(error, PublishError::NoNamespace | PublishError::Forbidden) && failures < 6;
                if !expected {
                    tracing::warn!(tenant = worker.uid, error = error::chain(&error), "failed to publish a policy");
                }
            }
        }
    }
    worker.forget();
}

/// Sleeps for a time; without one, forever.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl Worker {
    /// Returns how long it takes until a revocation becomes due.
    fn until_recheck(&self) -> Option<Duration> {
        let seconds = self.recheck_at?.saturating_sub(Timestamp::now().as_second()).clamp(0, 3600);
        Some(Duration::from_millis(u64::try_from(seconds).unwrap_or(0) * 1000 + 50))
    }

    /// Publishes the policy that the cached objects compile to, if it changed. With a proof, also records that the
    /// published policy is current. An urgent policy may stop calls, so it waits for no other tenant.
    async fn reconcile(&mut self, proof: Option<Instant>, is_urgent: bool) -> Result<(), PublishError> {
        let ctx = Arc::clone(&self.ctx);
        if !ctx.leadership.is_leader()
            || self.needs_proof_since.is_some_and(|since| proof.is_none_or(|read| read < since))
        {
            return Ok(());
        }
        let Some(entry) = ctx.cache.objects.tenants.with_uid(&self.uid) else { return Ok(()) };
        // Without its claims nothing can be read or written for the tenant, and its policy is not proved any more.
        let Some(tenant) = entry.object() else { return Ok(()) };
        if ctx.cache.older_claim(&tenant).is_some() {
            return Ok(());
        }
        if self.touched.swap(false, Ordering::Relaxed)
            && let Some(snapshots) = &self.snapshots
            && !snapshots.is_unchanged(&ctx.cache.secrets, &tenant.runtime_namespace()).await?
        {
            self.snapshots = None;
        }
        if self.snapshots.is_none() {
            // The API server would refuse, for a thousand new tenants with every proof. The RoleBinding wakes the worker.
            if !ctx.cache.has_access(&tenant.runtime_namespace()) {
                return Err(PublishError::Forbidden);
            }
            self.read(&tenant).await?;
        }
        if (self.previous.is_some() || self.later.is_some()) && tenant.metadata.deletion_timestamp.is_none() {
            // A published policy implies that the keys exist. If a new leader reads them here, it does not have to wait
            // for the tenant's controller.
            if let Err(error) = ctx.keys.get_or_create(&tenant.name_any(), &self.uid).await {
                tracing::warn!(tenant = self.uid, error = error::chain(&error), "failed to read the tenant's keys");
            }
        }
        // Without keys, the tenant's controller creates them and requests a compilation.
        let Some(mut inputs) = gather(&ctx, &entry) else { return Ok(()) };
        if inputs.unreadable.tenant.is_some() && self.previous.is_none() && self.later.is_none() {
            // It was never in force.
            return Ok(());
        }
        let floor = ctx.shared_state.policies.floor(&self.uid);
        if self.later.is_some() {
            self.keep_later(&inputs, floor).await?;
            self.needs_proof_since = None;
            if let (Some(read), Some(later)) = (proof, &self.later) {
                ctx.shared_state.policies.prove(&self.uid, Proof { generation: later.generation, read });
            }
            return Ok(());
        }
        let fingerprint = fingerprint(&inputs);
        let recheck_due = self.recheck_at.is_some_and(|at| at <= inputs.now);
        let generation = self.previous.as_ref().map_or(0, |previous| previous.policy.generation);
        if self.published_fingerprint != Some(fingerprint) || recheck_due || floor > generation || self.damaged {
            self.restore(&mut inputs).await?;
            // One tenant at a time, in the order of their requests.
            let turn = if is_urgent { None } else { Some(ctx.shared_state.compilation_turns.acquire().await) };
            self.compiled = true;
            let compiled = fitting(&inputs, self.previous.as_ref());
            drop(turn);
            self.publish(&inputs, compiled, floor).await?;
            self.published_fingerprint = Some(fingerprint);
            self.damaged = false;
        }
        self.needs_proof_since = None;
        if let (Some(read), Some(previous)) = (proof, &self.previous) {
            ctx.shared_state.policies.prove(&self.uid, Proof { generation: previous.policy.generation, read });
        }
        Ok(())
    }

    /// Reads the published snapshot, and decides whether it is damaged.
    async fn read(&mut self, tenant: &MCPTenant) -> Result<(), PublishError> {
        let labels = labels::of_tenant(COMPONENT, &tenant.name_any(), &self.uid);
        let turn = self.ctx.shared_state.snapshot_reads.acquire().await;
        let (snapshots, found) =
            SnapshotSecrets::read(self.ctx.client.clone(), &tenant.runtime_namespace(), labels, &self.uid).await?;
        drop(turn);
        let known = self.previous.as_ref().map(|previous| previous.policy.generation);
        let known = known.max(self.later.take().map(|later| later.generation));
        match (found, known) {
            (Err(error @ SnapshotError::LaterIndex { .. }), _) => return Err(PublishError::LaterIndex(error)),
            // A policy was published before, so another writer damaged the snapshot.
            (Err(_), Some(_)) => self.damaged = true,
            (Err(error), None) => return Err(PublishError::Unreadable(error)),
            (Ok(Found::Later(later)), _) if Some(later.generation) >= known => {
                (self.later, self.previous, self.entries, self.damaged) = (Some(later), None, None, false);
                // See `trusts_statuses`.
                self.enforced_by_later = known.map(|_| BTreeSet::new());
            }
            (Ok(Found::Policy(found)), _)
                if found.policy.tenant_uid == self.uid && Some(found.policy.generation) >= known =>
            {
                if Some(found.policy.generation) != known {
                    (self.entries, self.trusts_statuses) = (None, known.is_none());
                }
                self.previous = Some(*found);
            }
            // No snapshot, an older one, or one of a deleted tenant with the same name.
            (Ok(_), known) => self.damaged = known.is_some(),
        }
        self.snapshots = Some(snapshots);
        self.published_fingerprint = None;
        Ok(())
    }

    /// Publishes a compiled policy if it differs from the previous one, and records what it contains of each object.
    async fn publish(&mut self, inputs: &TenantInputs, compiled: Compiled, floor: u64) -> Result<(), PublishError> {
        let Compiled { mut policy, scopes, verdicts, recheck_at } = compiled;
        let before = self.previous.as_ref().map_or(0, |previous| previous.policy.generation);
        policy.generation = before;
        let unchanged = !self.damaged
            && floor <= before
            && self.previous.as_ref().is_some_and(|previous| *previous.policy == policy);
        if !unchanged {
            policy.generation = before.max(floor).saturating_add(1);
        }
        let encoded = mcp_fleet_control::encode(&policy);
        let compressed = CompressedPolicy::new(&encoded).map_err(PublishError::TooLarge)?;
        if !unchanged {
            check_enforceable(&encoded).map_err(PublishError::Unenforceable)?;
            let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
            // In the form that the previous version of the operator reads, if it could have written this policy at all.
            let expanded = expanded(&policy).and_then(|expanded| CompressedPolicy::new(&expanded).ok());
            let written = expanded.as_ref().unwrap_or(&compressed);
            if let Err(error) = snapshots.write(policy.generation, written, &scopes).await {
                self.forget_snapshot(&error);
                return Err(error);
            }
            tracing::info!(tenant = policy.tenant, generation = policy.generation, "published a policy");
            self.report_replaced_keys(&inputs.tenant, &policy).await;
        }
        let (shared, policy) = (&self.ctx.shared_state, Arc::new(policy));
        let (generation, digest) = (policy.generation, encoded.digest.to_string());
        // Before a gateway can acknowledge it.
        shared.update_tenant_state(&self.uid, |state| state.set_audiences(generation, &policy.other_audiences));
        let shared_generation = shared.policies.published(&self.uid).map(|published| published.policy.generation);
        if shared_generation != Some(generation) {
            let published = Published::new(Arc::clone(&policy), encoded, compressed.size());
            shared.policies.publish(&self.uid, published);
        }
        let known = match (self.entries.take(), &self.previous) {
            (Some(entries), Some(previous)) => Known::Entries { entries, changed: changed(&previous.policy, &policy) },
            (None, Some(_)) if self.trusts_statuses => Known::Enforced(enforced(inputs)),
            _ => Known::Nothing,
        };
        let entries = Arc::new(entries(verdicts, generation, &addressed(&policy), &known));
        shared.set_published(&self.uid, generation, digest, Arc::clone(&entries));
        self.entries = Some(entries);
        self.previous = Some(Previous { policy, scopes });
        self.recheck_at = recheck_at;
        Ok(())
    }

    /// Reports that the tenant's keys were lost: the policy has none of those that the previous one had.
    async fn report_replaced_keys(&self, tenant: &MCPTenant, policy: &TenantPolicy) {
        let Some(previous) = &self.previous else { return };
        let is_known = |key: &VerificationKey| previous.policy.keys.iter().any(|known| known.kid == key.kid);
        if previous.policy.keys.is_empty() || policy.keys.iter().any(is_known) {
            return;
        }
        tracing::error!(tenant = policy.tenant, "the tenant's keys were lost, and new ones were made");
        let note = "the Secret with the tenant's keys was lost, and new keys were made: all tokens are issued again";
        self.ctx.events.warning(tenant, "KeysReplaced", "Publish", note.into()).await;
    }

    /// Has the snapshot read again after a failed write, which may or may not have happened. After a conflict, another
    /// replica may be more current, so this one needs a new proof first.
    pub(super) fn forget_snapshot(&mut self, error: &PublishError) {
        self.snapshots = None;
        if matches!(error, PublishError::Conflict) {
            self.needs_proof_since = Some(Instant::now());
        }
    }

    /// Sets or clears the tenant's publishing error.
    fn set_error(&self, outcome: &Result<(), PublishError>) {
        let error = match outcome {
            Ok(()) if self.later.is_some() => Some((ConditionReason::LaterPolicy, MESSAGE.to_owned())),
            Err(error @ PublishError::LaterIndex(_)) => Some((ConditionReason::LaterPolicy, error::chain(error))),
            Ok(()) | Err(PublishError::Conflict) => None,
            Err(error) => Some((ConditionReason::PolicyNotPublished, error::chain(error))),
        };
        self.ctx.shared_state.update_tenant_state(&self.uid, |state| {
            let refused = state.error.as_ref().is_some_and(|(reason, _)| *reason == ConditionReason::PolicyRefused);
            if error.is_some() || !refused {
                state.error = error;
            }
        });
    }

    /// Removes everything that the worker has set for a deleted tenant.
    fn forget(&self) {
        let shared = &self.ctx.shared_state;
        shared.policies.remove(&self.uid);
        shared.remove_tenant(&self.uid);
    }
}
