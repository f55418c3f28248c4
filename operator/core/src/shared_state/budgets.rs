//! The spend of all budgets, as the budget controller last computed it from the ledger.

use std::collections::HashMap;

use mcp_fleet_crds::budget::{Spending, ToppedUp};
use parking_lot::RwLock;

/// Spend of one budget in its current period.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetState {
    /// Spend for the status.
    pub spending: Spending,
    /// Whether nothing is left, or too little for the last call that needed a lease.
    pub exhausted: bool,
    /// What a person added to the limits for the period.
    pub top_up: Option<ToppedUp>,
}

/// Spend of all budgets that statuses show, by UID. Up to a minute old: the ledger writes reports in batches, and statuses
/// are throttled.
#[derive(Debug, Default)]
pub struct BudgetStates(RwLock<HashMap<String, BudgetState>>);

impl BudgetStates {
    /// Returns the spend of a budget; none until it was computed.
    pub fn get(&self, budget_uid: &str) -> Option<BudgetState> {
        self.0.read().get(budget_uid).cloned()
    }

    /// Removes all budgets.
    pub fn clear(&self) {
        self.0.write().clear();
    }

    /// Sets the spend of a budget.
    pub fn set(&self, budget_uid: &str, state: BudgetState) {
        self.0.write().insert(budget_uid.to_owned(), state);
    }

    /// Removes all budgets for which `exists` returns false.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.0.write().retain(|uid, _| exists(uid));
    }
}
