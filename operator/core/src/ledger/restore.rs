//! Takes over the books of a tenant that was restored from a backup. In the new cluster the tenant and its budgets have
//! other UIDs than in the backup, and the books are found by UID.
//!
//! Each book is added to that of the new UID, and then removed. The book of the new UID names the old one, so that a leader
//! that finds the first step without the second does not add it again.

use std::collections::BTreeMap;

use mcp_fleet_ledger::commit::Effect;

use super::book::Book;
use super::change::Reports;
use super::error::LedgerError;
use super::record::Owner;
use super::service::Ledger;
use super::store::{BookKey, Store, StoreError};

/// A tenant that was restored, and the one in the backup.
#[derive(Clone, Debug)]
pub struct Restored<'a> {
    /// UID of the tenant in the backup.
    pub from: &'a str,
    /// Name of the tenant.
    pub tenant: &'a str,
    /// UID of the tenant now.
    pub tenant_uid: &'a str,
    /// UIDs of the tenant's budgets now, by name.
    pub budgets: BTreeMap<String, String>,
}

impl<S: Store> Ledger<S> {
    /// Takes over the open books of a restored tenant: those of its spend limit, and those of the budgets that exist again.
    /// Returns how many there were. The books of another tenant are never taken over.
    pub async fn restore(&self, restored: &Restored<'_>) -> Result<usize, LedgerError> {
        let mut found: Vec<(BookKey, Owner)> = self
            .books()
            .into_iter()
            .map(|(key, stored)| (key, stored.owner.clone()))
            .filter(|(_, owner)| owner.tenant_uid == restored.from && owner.tenant == restored.tenant)
            .collect();
        // The book of all closed periods comes first: what it holds is removed from the others.
        found.sort_by_key(|(key, _)| !key.is_closed_periods());
        let mut count = 0;
        for (key, owner) in found {
            let uid = if owner.is_spend_limit() {
                restored.tenant_uid
            } else {
                let Some(uid) = restored.budgets.get(&owner.budget) else { continue };
                uid
            };
            let new = Owner {
                tenant: owner.tenant.clone(),
                tenant_uid: restored.tenant_uid.to_owned(),
                budget: owner.budget.clone(),
                budget_uid: uid.to_owned(),
            };
            count += usize::from(self.restore_book(&key, &owner, new).await?);
        }
        Ok(count)
    }

    /// Takes over one book. Returns whether there was anything to take over.
    async fn restore_book(&self, key: &BookKey, owner: &Owner, new: Owner) -> Result<bool, LedgerError> {
        if key.is_closed_periods()
            && let Some(last) = self.stored(key).and_then(|stored| stored.book.last_closed)
        {
            self.finish_closing(owner, last).await?;
        }
        // After that, this may be a book of which only totals are left.
        let Some(stored) = self.stored(key).filter(|stored| !stored.book.is_closed()) else { return Ok(false) };
        let new_key = BookKey { budget_uid: new.budget_uid.clone(), start: key.start };
        let slot = self.slot(&new_key);
        let mut writer = slot.lock().await;
        writer.owner = Some(new);
        self.change(&new_key, &slot, &mut writer, stored.book.span, Reports::Wait, |book: &mut Book| {
            if book.restored_from.as_ref() == Some(&key.budget_uid) {
                return ((), Effect::NeedsCurrent);
            }
            book.absorb(&stored.book);
            book.restored_from = Some(key.budget_uid.clone());
            ((), Effect::Changed)
        })
        .await?;
        drop(writer);
        match self.store.remove(key, &stored.version).await {
            // Another leader removed it, or it changed and is removed in the next attempt.
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        self.remove_slot(key, |_, _| true);
        Ok(true)
    }
}
