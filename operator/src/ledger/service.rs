//! The ledger as the control stream uses it: charge, settle, forfeit, each by compare-and-swap before it is answered.
//!
//! Two operators that both believe they lead may run this at once: each write names the version it was computed
//! from, and what is answered without a write is checked against a fresh read first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use mcp_fleet_policy::model::Budget;
use parking_lot::RwLock;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;
use ulid::Ulid;

use super::book::{Ask, Book, Granted, Limit, Refusal, Report, ReportError, Reported, Row};
use super::period::Span;
use super::record::Owner;
use super::store::{Key, Store, StoreError, Stored};

/// How long a lease may be spent.
pub(crate) const VALID: Duration = Duration::from_mins(2);
/// How long after its deadline a lease waits for its last report.
pub(crate) const GRACE: Duration = Duration::from_mins(1);
/// The least time between two writes of a book that only carry reports.
pub(crate) const BATCH: Duration = Duration::from_secs(1);
/// How long a refusal may rest on a book that was not read again: another writer may have given something back.
const REFUSE_UNREAD: Duration = Duration::from_secs(5);
/// How often a write is tried anew when somebody else was faster.
const ATTEMPTS: usize = 8;
/// How many books are flushed at a time.
const FLUSHES: usize = 8;

/// Why the ledger gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// It could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others kept writing in between.
    #[error("failed to write a ledger: too many others write it")]
    Contended,
    /// The calendar has no such period.
    #[error("failed to find the period of a budget")]
    Calendar,
    /// The report cannot be true.
    #[error("failed to apply a report")]
    Report(#[from] ReportError),
    /// The book belongs to another tenant.
    #[error("failed to apply a report: the lease is another tenant's")]
    Foreign,
}

/// What a request for a lease came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The lease, or why there is none.
    pub result: Result<Granted, Refusal>,
    /// The period it was charged to.
    pub span: Span,
    /// Leases of others that could come back: their holders should be asked to end them.
    pub recall: Vec<(String, String)>,
}

/// What a change of a book came to.
enum Step<R> {
    /// It was changed and has to be written before the answer counts.
    Changed(R),
    /// It was not changed, but the answer counts only for the book as it is now.
    Confirm(R),
    /// It was not changed, and the answer is safe even for an old book.
    Safe(R),
}

/// A report that waits for the next write.
struct Waiting {
    tenant_uid: String,
    report: Report,
    done: oneshot::Sender<Result<(), LedgerError>>,
}

/// One book and what is known of it.
struct Slot {
    owner: Option<Owner>,
    stored: Option<Stored>,
    waiting: Vec<Waiting>,
    /// When it was written last by this replica.
    written: Option<Instant>,
    /// When it was read or written last.
    seen: Option<Instant>,
}

/// The books of all budgets.
pub(crate) struct Ledger<S> {
    store: S,
    now_ms: fn() -> i64,
    batch: Duration,
    slots: parking_lot::Mutex<HashMap<Key, Arc<Mutex<Slot>>>>,
    pub(super) known: RwLock<HashMap<Key, Arc<Stored>>>,
    /// Settled money of removed books, by the budget's UID and the names of a row.
    pub(super) retired: RwLock<HashMap<(String, Row), u64>>,
    /// Budgets that refused a lease since their last grant.
    pub(super) exhausted: RwLock<HashSet<Key>>,
    /// Reports came in since the last flush that left none waiting.
    reported: AtomicBool,
}

impl<S> std::fmt::Debug for Ledger<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("books", &self.known.read().len()).finish_non_exhaustive()
    }
}

impl<S: Store> Ledger<S> {
    /// A ledger that knows nothing yet. `now_ms` is the clock, in Unix milliseconds.
    ///
    /// `batch` is the least time between two writes of a book that only carry reports.
    pub(crate) fn new(store: S, now_ms: fn() -> i64, batch: Duration) -> Self {
        Self {
            store,
            now_ms,
            batch,
            slots: parking_lot::Mutex::default(),
            known: RwLock::default(),
            retired: RwLock::default(),
            exhausted: RwLock::default(),
            reported: AtomicBool::new(false),
        }
    }

    /// Reads every book: what a new leader does first, and now and then, since an old leader may have written late.
    pub(crate) async fn load(&self) -> Result<(), LedgerError> {
        let started = Instant::now();
        for (key, stored) in self.store.list().await? {
            let slot = self.slot(&key);
            let mut slot = slot.lock().await;
            if slot.written.is_some_and(|written| written >= started) {
                continue;
            }
            slot.owner = Some(stored.owner.clone());
            self.remember(&key, &mut slot, stored);
        }
        Ok(())
    }

    /// Charges a lease to the current period of a budget; it is written when this returns.
    pub(crate) async fn grant(&self, owner: &Owner, budget: &Budget, ask: &Ask) -> Result<Answer, LedgerError> {
        let now = (self.now_ms)();
        let span = Span::containing(budget.period, now.div_euclid(1000)).ok_or(LedgerError::Calendar)?;
        let key = Key { budget_uid: budget.uid.clone(), start: span.start };
        let limit = Limit { micros: budget.amount.map(mcp_fleet_policy::units::Micros::get), calls: budget.calls };
        let id = format!("{}.{}", span.start, Ulid::generate());
        let valid = i64::try_from(VALID.as_millis()).unwrap_or(i64::MAX);
        let deadline = now.saturating_add(valid).min(span.end.saturating_mul(1000));
        let slot = self.slot(&key);
        let mut slot = slot.lock().await;
        slot.owner = Some(owner.clone());
        let unread = slot.seen.is_none_or(|seen| seen.elapsed() > REFUSE_UNREAD);
        let (result, recall) = self
            .change(&key, &mut slot, span, |book| {
                let result = book.grant(ask, limit, id.clone(), deadline);
                match &result {
                    Ok(granted) if granted.new => Step::Changed((result, Vec::new())),
                    Ok(_) => Step::Confirm((result, Vec::new())),
                    Err(_) if unread => Step::Confirm((result, recallable(book, ask))),
                    Err(_) => Step::Safe((result, recallable(book, ask))),
                }
            })
            .await?;
        drop(slot);
        self.note(key, &result);
        Ok(Answer { result, span, recall })
    }

    /// Hands in a report. What is received later says that it stands in the book, or why it does not.
    pub(crate) async fn report(
        &self,
        tenant_uid: &str,
        budget_uid: &str,
        report: Report,
    ) -> oneshot::Receiver<Result<(), LedgerError>> {
        let (done, receiver) = oneshot::channel();
        let start = report.lease.split_once('.').and_then(|(start, _)| start.parse().ok());
        let Some(start) = start else {
            // Not a lease of this ledger: there is nothing to settle.
            let _ = done.send(Ok(()));
            return receiver;
        };
        let key = Key { budget_uid: budget_uid.to_owned(), start };
        match self.existing(&key).await {
            Err(error) => {
                let _ = done.send(Err(error));
            }
            Ok(None) => {
                let _ = done.send(Ok(()));
            }
            Ok(Some(slot)) => {
                let mut slot = slot.lock().await;
                // A newer report on the same lease says all that an older one does.
                let older = slot.waiting.iter().position(|waiting| {
                    waiting.report.lease == report.lease
                        && waiting.report.holder == report.holder
                        && waiting.report.sequence <= report.sequence
                        && !waiting.report.last
                });
                if let Some(older) = older {
                    slot.waiting.remove(older);
                }
                slot.waiting.push(Waiting { tenant_uid: tenant_uid.to_owned(), report, done });
                self.reported.store(true, Ordering::Release);
            }
        }
        receiver
    }

    /// Writes the reports that wait, for books that were not written within the time of a batch.
    pub(crate) async fn flush(&self) {
        if !self.reported.swap(false, Ordering::Acquire) {
            return;
        }
        let slots: Vec<(Key, Arc<Mutex<Slot>>)> =
            self.slots.lock().iter().map(|(key, slot)| (key.clone(), Arc::clone(slot))).collect();
        // A book that is slow to write holds up few others.
        let each = futures::stream::iter(slots).for_each_concurrent(FLUSHES, async |(key, slot)| {
            let mut slot = slot.lock().await;
            if !slot.waiting.is_empty() && slot.written.is_none_or(|written| written.elapsed() >= self.batch) {
                self.settle(&key, &mut slot).await;
            }
            if !slot.waiting.is_empty() {
                self.reported.store(true, Ordering::Release);
            }
        });
        each.await;
    }

    /// Gives up what a pod holds: all of it, or what is of another epoch than `running`.
    pub(crate) async fn gone(&self, pod_uid: &str, running: Option<&str>) {
        let now = (self.now_ms)().div_euclid(1000);
        let holds = |stored: &Stored| {
            let mut leases = stored.book.leases.iter();
            leases.any(|lease| lease.holder.pod_uid == pod_uid && Some(lease.holder.epoch.as_str()) != running)
        };
        let keys: Vec<Key> =
            self.known.read().iter().filter(|(_, stored)| holds(stored)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.quietly(&key, |book| {
                book.forfeit(now, |lease| {
                    lease.holder.pod_uid == pod_uid && Some(lease.holder.epoch.as_str()) != running
                })
            })
            .await;
        }
    }

    /// Gives up leases that are overdue, and removes books whose time has passed.
    pub(crate) async fn expire(&self) {
        let now = (self.now_ms)();
        let grace = i64::try_from(GRACE.as_millis()).unwrap_or(i64::MAX);
        for (key, stored) in self.books() {
            if stored.book.leases.iter().any(|lease| lease.deadline.saturating_add(grace) <= now) {
                self.quietly(&key, |book| book.expire(now, grace)).await;
            } else if stored.book.leases.is_empty()
                && kept_until(stored.book.span) <= now.div_euclid(1000)
                && self.store.remove(&key, &stored.version).await.is_ok()
            {
                self.retire(&stored);
                self.known.write().remove(&key);
                self.exhausted.write().remove(&key);
                self.slots.lock().remove(&key);
            }
        }
    }

    /// Changes a book without anybody waiting for it; what fails is tried again with the next tick.
    async fn quietly(&self, key: &Key, mut change: impl FnMut(&mut Book) -> bool) {
        let Some(span) = self.span(key) else { return };
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        let result = self
            .change(key, &mut slot, span, |book| if change(book) { Step::Changed(()) } else { Step::Safe(()) })
            .await;
        if let Err(error) = result {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "forfeiting is tried again"
            );
        }
    }

    /// Writes the reports that wait in a slot.
    async fn settle(&self, key: &Key, slot: &mut Slot) {
        let Some(span) = self.span(key) else { return };
        // Applying them is part of every change; so an empty change is enough.
        if let Err(error) = self.change(key, slot, span, |_| Step::Safe(())).await {
            tracing::warn!(
                budget = key.budget_uid,
                error = &error as &dyn std::error::Error,
                "settling is tried again"
            );
        }
    }

    /// Changes a book: first by the reports that wait, then by `step`; written before this returns.
    async fn change<R>(
        &self,
        key: &Key,
        slot: &mut Slot,
        span: Span,
        mut step: impl FnMut(&mut Book) -> Step<R>,
    ) -> Result<R, LedgerError> {
        let mut fresh = false;
        for _ in 0..ATTEMPTS {
            if slot.stored.is_none() {
                fresh = true;
                if let Some(stored) = self.store.read(key).await? {
                    self.remember(key, slot, stored);
                }
            }
            let owner = slot.owner.clone().ok_or(LedgerError::Foreign)?;
            let (mut book, version) = match &slot.stored {
                Some(stored) => (stored.book.clone(), Some(stored.version.clone())),
                None => (Book::new(span), None),
            };
            let (mut changed, mut confirm) = (false, false);
            let reports: Vec<Result<Reported, LedgerError>> = slot
                .waiting
                .iter()
                .map(|waiting| {
                    if waiting.tenant_uid != owner.tenant_uid {
                        return Err(LedgerError::Foreign);
                    }
                    let reported = book.report(&waiting.report)?;
                    changed |= reported == Reported::Applied;
                    confirm |= reported == Reported::Known;
                    Ok(reported)
                })
                .collect();
            let result = match step(&mut book) {
                Step::Changed(result) => {
                    changed = true;
                    result
                }
                Step::Confirm(result) => {
                    confirm = true;
                    result
                }
                Step::Safe(result) => result,
            };
            if changed {
                match self.store.write(key, &owner, &book, version.as_deref()).await {
                    Ok(version) => {
                        slot.written = Some(Instant::now());
                        self.remember(key, slot, Stored { owner, book, version });
                    }
                    Err(StoreError::Conflict) => {
                        slot.stored = None;
                        continue;
                    }
                    Err(error) => {
                        // It may or may not be written: only a new read can tell.
                        slot.stored = None;
                        return Err(error.into());
                    }
                }
            } else if confirm && !fresh {
                slot.stored = None;
                continue;
            }
            for (waiting, report) in slot.waiting.drain(..).zip(reports) {
                // The holder may have gone away in the meantime.
                let _ = waiting.done.send(report.map(|_| ()));
            }
            return Ok(result);
        }
        Err(LedgerError::Contended)
    }

    fn span(&self, key: &Key) -> Option<Span> {
        self.known.read().get(key).map(|stored| stored.book.span)
    }

    fn slot(&self, key: &Key) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            Arc::new(Mutex::new(Slot { owner: None, stored: None, waiting: Vec::new(), written: None, seen: None }))
        });
        Arc::clone(slot)
    }

    /// The slot of a book that exists, here or in the store.
    async fn existing(&self, key: &Key) -> Result<Option<Arc<Mutex<Slot>>>, LedgerError> {
        let known = self.slots.lock().get(key).cloned();
        if let Some(slot) = known {
            return Ok(Some(slot));
        }
        let Some(stored) = self.store.read(key).await? else { return Ok(None) };
        let slot = self.slot(key);
        let mut guard = slot.lock().await;
        if guard.stored.is_none() {
            guard.owner = Some(stored.owner.clone());
            self.remember(key, &mut guard, stored);
        }
        drop(guard);
        Ok(Some(slot))
    }

    fn remember(&self, key: &Key, slot: &mut Slot, stored: Stored) {
        self.known.write().insert(key.clone(), Arc::new(stored.clone()));
        slot.stored = Some(stored);
        slot.seen = Some(Instant::now());
    }
}

/// Leases of others that could come back, with the pods that hold them: the first eight.
fn recallable(book: &Book, ask: &Ask) -> Vec<(String, String)> {
    let others = book.leases.iter().filter(|lease| lease.holder != ask.holder);
    others.map(|lease| (lease.holder.pod_uid.clone(), lease.id.clone())).take(8).collect()
}

/// Until when a book is kept, Unix seconds: 35 periods after its end, but two days at least and 400 at most.
fn kept_until(span: Span) -> i64 {
    const DAY: i64 = 24 * 3600;
    let periods = span.end.saturating_sub(span.start).saturating_mul(35);
    span.end.saturating_add(periods.clamp(2 * DAY, 400 * DAY))
}
