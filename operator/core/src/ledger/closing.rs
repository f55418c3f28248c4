//! Closes ended periods: a closed book has only totals, and is removed after its retention.
//!
//! The rows of a spend limit move to the book of all closed periods, because `mcp_fleet_spend_total` must never decrease.
//! That takes two writes. [`ClosedPeriod`] identifies the rows that were added last, so a leader that finds the first
//! write without the second does not add them again.

use mcp_fleet_ledger::commit::{Effect, MAX_ATTEMPTS};

use super::book::{Book, ClosedPeriod};
use super::change::Reports;
use super::error::LedgerError;
use super::period::Span;
use super::record::Owner;
use super::service::Ledger;
use super::store::{BookKey, Page, Selection, Store, StoreError, StoredBook};
use crate::error;

/// How long the book of all closed periods is retained after the last one, in seconds. A tenant that spent nothing for
/// that long has probably been deleted; if not, its counters start at zero again.
const CLOSED_PERIODS_RETENTION: i64 = 400 * 24 * 3600;

impl<S: Store> Ledger<S> {
    /// Closes the periods that have ended and that no report can change any more.
    pub async fn close_ended(&self) {
        let now = (self.now_ms)().div_euclid(1000);
        for (key, stored) in self.books() {
            let result = if key.is_closed_periods() {
                self.retire_closed_periods(&key, &stored, now).await
            } else if stored.book.can_close(now) {
                self.close(&key, &stored.owner, stored.book.span, now).await
            } else {
                Ok(())
            };
            if let Err(error) = result {
                tracing::warn!(budget = key.budget_uid, error = error::chain(&error), "failed to close a period");
            }
        }
    }

    /// Closes a book, and then removes it from memory.
    async fn close(&self, key: &BookKey, owner: &Owner, span: Span, now: i64) -> Result<(), LedgerError> {
        let slot = self.slot(key);
        let mut writer = slot.lock().await;
        if owner.is_spend_limit() {
            let sealed = self
                .change(key, &slot, &mut writer, span, Reports::Wait, |book| {
                    if !book.can_close(now) {
                        return (None, Effect::Unchanged);
                    }
                    if book.seal() {
                        (Some(book.clone()), Effect::Changed)
                    } else {
                        (Some(book.clone()), Effect::NeedsCurrent)
                    }
                })
                .await?;
            let Some(sealed) = sealed else { return Ok(()) };
            self.add_to_closed_periods(owner, &sealed).await?;
        }
        self.change(key, &slot, &mut writer, span, Reports::Wait, |book| {
            if !book.can_close(now) {
                return ((), Effect::Unchanged);
            }
            book.close();
            ((), Effect::Changed)
        })
        .await?;
        drop(writer);
        drop(slot);
        self.remove_slot(key, |slot, _| slot.stored().is_some_and(|stored| stored.book.is_closed()));
        Ok(())
    }

    /// Adds the rows of a sealed book to the book of all closed periods, unless they were added before.
    async fn add_to_closed_periods(&self, owner: &Owner, period: &Book) -> Result<(), LedgerError> {
        let key = BookKey::closed_periods(&owner.budget_uid);
        let span = Span { start: key.start, end: period.span.end };
        let slot = self.slot(&key);
        let mut writer = slot.lock().await;
        writer.owner = Some(owner.clone());
        for _ in 0..MAX_ATTEMPTS {
            let last = self
                .change(&key, &slot, &mut writer, span, Reports::Wait, |closed| {
                    (closed.last_closed, Effect::NeedsCurrent)
                })
                .await?;
            // Only the period that was added last is known, so it has to be finished before the next one.
            if let Some(last) = last.filter(|last| last.start != period.span.start) {
                self.finish_closing(owner, last).await?;
            }
            let added = self
                .change(&key, &slot, &mut writer, span, Reports::Wait, |closed| {
                    if closed.last_closed == Some(period.closed_period()) {
                        return (true, Effect::NeedsCurrent);
                    }
                    if closed.last_closed != last {
                        // Another leader has added a period that may have to be finished.
                        return (false, Effect::Unchanged);
                    }
                    closed.add_closed(period);
                    (true, Effect::Changed)
                })
                .await?;
            if added {
                return Ok(());
            }
        }
        Err(LedgerError::Contended)
    }

    /// Closes a book whose rows a leader has added to the book of all closed periods, if that leader did not get to it.
    pub(super) async fn finish_closing(&self, owner: &Owner, last: ClosedPeriod) -> Result<(), LedgerError> {
        let key = BookKey { budget_uid: owner.budget_uid.clone(), start: last.start };
        let slot = self.slot(&key);
        let mut writer = slot.lock().await;
        writer.owner = Some(owner.clone());
        self.change(&key, &slot, &mut writer, Span { start: last.start, end: last.start }, Reports::Wait, |book| {
            if book.rows.is_empty() || !book.leases.is_empty() || book.closed_period() != last {
                return ((), Effect::NeedsCurrent);
            }
            book.close();
            ((), Effect::Changed)
        })
        .await
    }

    /// Removes the book of all closed periods of a tenant that has spent nothing for a long time.
    async fn retire_closed_periods(&self, key: &BookKey, stored: &StoredBook, now: i64) -> Result<(), LedgerError> {
        if stored.book.span.end.saturating_add(CLOSED_PERIODS_RETENTION) <= now {
            self.store.remove(key, &stored.version).await?;
            self.remove_slot(key, |_, _| true);
        }
        Ok(())
    }

    /// Removes the closed books whose retention has ended.
    pub async fn remove_closed(&self) -> Result<(), LedgerError> {
        let now = (self.now_ms)().div_euclid(1000);
        let mut page = None;
        loop {
            let Page { books, next } = self.store.list(Selection::Closed, page).await?;
            for listed in books.into_iter().filter(|listed| listed.retained_until.is_some_and(|until| until <= now)) {
                match self.store.remove(&listed.key, &listed.version).await {
                    // A book that has changed is not removed before the next pass.
                    Ok(()) | Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            page = next;
            if page.is_none() {
                return Ok(());
            }
        }
    }
}
