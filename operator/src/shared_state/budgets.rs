//! The spend of all budgets, as the budget controller last computed it from the ledger.

use std::collections::HashMap;

use mcp_fleet_crds::budget::Spending;
use parking_lot::RwLock;

/// Spend of one budget in its current period.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BudgetState {
    /// Spend for the status.
    pub spending: Spending,
    /// Whether nothing is left, or too little for the last call that needed a lease.
    pub exhausted: bool,
}

/// Spend of all budgets, by UID; up to 20 seconds old, because the ledger writes reports in batches.
#[derive(Debug, Default)]
pub(crate) struct BudgetStates(RwLock<HashMap<String, BudgetState>>);

impl BudgetStates {
    /// Returns the spend of a budget; none until it was computed.
    pub(crate) fn get(&self, budget_uid: &str) -> Option<BudgetState> {
        self.0.read().get(budget_uid).cloned()
    }

    /// Removes all budgets.
    pub(crate) fn clear(&self) {
        self.0.write().clear();
    }

    /// Replaces the spend of all budgets. Returns the UIDs of those whose spend changed.
    pub(crate) fn replace(&self, budgets: HashMap<String, BudgetState>) -> Vec<String> {
        let mut all = self.0.write();
        let changed =
            budgets.iter().filter(|(uid, state)| all.get(*uid) != Some(*state)).map(|(uid, _)| uid.clone()).collect();
        *all = budgets;
        changed
    }
}
