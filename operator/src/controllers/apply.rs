//! The apply step, the same for all kinds: objects are applied in order, what the owner no longer declares is deleted, and
//! what someone else changed is reported.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use kube::Resource;
use kube::core::object::HasStatus;
use parking_lot::Mutex;
use serde_json::Value;

use super::error::ReconcileError;
use super::identity::ObjectId;
use super::status::{HasConditions, is_ready_as_written};
use crate::context::Context;
use crate::kubernetes::apply::{Action, Applied, Rendered, apply_indexed, apply_reserved, apply_reserved_indexed};
use crate::kubernetes::cache::{Key, Meta};
use crate::kubernetes::deletion::{OwnerState, delete_owned};

/// Number of objects that a replica remembers. At the limit it forgets all of them, and then does not report the next
/// deletion of one.
const MAX_REMEMBERED: usize = 500_000;

/// How long an object of a kind that is not watched is not read again.
const TRUST_TIME: Duration = Duration::from_secs(60);

/// The declarations that this replica has applied, by object. An object that is missing now was deleted, and is not one that
/// only a new version of the operator declares.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    hasher: RandomState,
    /// By hash of the object's name.
    applied: Mutex<HashMap<u64, LastApplied>>,
}

/// The declaration of an object that was applied last.
#[derive(Debug)]
struct LastApplied {
    digest: u64,
    at: Instant,
}

impl Declared {
    /// Remembers a declaration that was applied now. Returns whether the last one of this object was the same.
    fn remember(&self, wanted: &Rendered, now: Instant) -> bool {
        let (object, digest) = self.hashes(wanted);
        let mut applied = self.applied.lock();
        if applied.len() >= MAX_REMEMBERED {
            applied.clear();
        }
        applied.insert(object, LastApplied { digest, at: now }).is_some_and(|last| last.digest == digest)
    }

    /// Whether the same declaration of an object was applied a short time ago.
    fn is_trusted(&self, wanted: &Rendered, now: Instant) -> bool {
        let (object, digest) = self.hashes(wanted);
        self.applied
            .lock()
            .get(&object)
            .is_some_and(|last| last.digest == digest && now.saturating_duration_since(last.at) < TRUST_TIME)
    }

    fn hashes(&self, wanted: &Rendered) -> (u64, u64) {
        (self.hasher.hash_one(wanted.key()), self.hasher.hash_one(wanted.digest()))
    }
}

/// Applies the objects of one owner, the object that is reconciled.
pub(crate) struct Applier<'a, K> {
    ctx: &'a Context,
    owner: &'a K,
    /// Whether the owner was ready as it is written now. Then everything was applied before.
    was_ready: bool,
    applied: Vec<Key>,
}

impl<'a, K> Applier<'a, K>
where
    K: Resource<DynamicType = ()> + HasStatus,
    K::Status: HasConditions,
{
    /// Starts the apply step of `owner`.
    pub(crate) fn new(ctx: &'a Context, owner: &'a K) -> Self {
        Self { ctx, owner, was_ready: is_ready_as_written(owner), applied: Vec::new() }
    }

    /// Applies one object and returns it as the API server holds it now. If it need not be read, the returned object has no
    /// more than the state of a workload.
    pub(crate) async fn apply(&mut self, wanted: &Rendered) -> Result<Value, ReconcileError> {
        self.apply_until(wanted, |_| true).await
    }

    /// Applies one object like [`Self::apply`]. It is read each time until `is_settled` holds for it.
    pub(crate) async fn apply_until(
        &mut self,
        wanted: &Rendered,
        is_settled: impl Fn(&Value) -> bool,
    ) -> Result<Value, ReconcileError> {
        let applied = apply_indexed(&self.ctx.client, &self.ctx.cache.owned, wanted, is_settled).await?;
        Ok(self.note(wanted, applied).await)
    }

    /// Applies one object whose name is reserved for the operator, in place of any other of that name. Its kind is one that
    /// the cache watches.
    pub(crate) async fn apply_reserved(&mut self, wanted: &Rendered) -> Result<(), ReconcileError> {
        let applied = apply_reserved_indexed(&self.ctx.client, &self.ctx.cache.owned, wanted).await?;
        self.note(wanted, applied).await;
        Ok(())
    }

    /// Applies one object like [`Self::apply_reserved`], of a kind that is not watched. It is read at most once in
    /// [`TRUST_TIME`].
    pub(crate) async fn apply_reserved_unwatched(&mut self, wanted: &Rendered) -> Result<(), ReconcileError> {
        if self.ctx.declared.is_trusted(wanted, Instant::now()) {
            self.applied.push(wanted.key());
            return Ok(());
        }
        let applied = apply_reserved(&self.ctx.client, wanted).await?;
        self.note(wanted, applied).await;
        Ok(())
    }

    /// Notes that an object is declared, and reports it if someone else had changed it.
    async fn note(&mut self, wanted: &Rendered, applied: Applied) -> Value {
        self.applied.push(wanted.key());
        let was_declared = self.ctx.declared.remember(wanted, Instant::now()) || applied.was_applied_last;
        if self.was_ready && was_declared && applied.action != Action::Nothing {
            let note = format!("{wanted} was deleted or changed, and is restored");
            self.ctx.events.warning(self.owner, "PutBack", "Apply", note).await;
        }
        applied.live
    }

    /// Applies objects in the given order.
    pub(crate) async fn apply_all<'r>(
        &mut self,
        wanted: impl IntoIterator<Item = &'r Rendered>,
    ) -> Result<(), ReconcileError> {
        for wanted in wanted {
            self.apply(wanted).await?;
        }
        Ok(())
    }

    /// Deletes those of the owned objects that were not applied, if the owner is still as it was reconciled. If it
    /// changed, its next reconcile deletes them.
    pub(crate) async fn prune(self, owned: impl IntoIterator<Item = (Key, Meta)>) -> Result<(), ReconcileError> {
        let undeclared = owned.into_iter().filter(|(key, _)| !self.applied.contains(key)).collect();
        delete_undeclared(self.ctx, self.owner, undeclared).await
    }
}

/// Deletes objects that their owner does not declare, if the owner is still as it was reconciled.
pub(crate) async fn delete_undeclared<K: Resource<DynamicType = ()>>(
    ctx: &Context,
    owner: &K,
    undeclared: Vec<(Key, Meta)>,
) -> Result<(), ReconcileError> {
    if undeclared.is_empty() {
        return Ok(());
    }
    let (client, metadata) = (&ctx.client, owner.meta());
    let ObjectId { name, uid } = ObjectId::of(metadata)?;
    let state = OwnerState::read::<K>(client, metadata.namespace.as_deref(), &name, &uid).await?;
    let Some(proof) = state.not_declared(metadata.generation) else {
        tracing::info!("the cache lags behind, so nothing is deleted in this reconcile");
        return Ok(());
    };
    Ok(delete_owned(client, &proof, undeclared).await?)
}
