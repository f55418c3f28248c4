//! Where the budgets stand, as the controller of budgets found it last.

use std::collections::HashMap;

use mcp_fleet_crds::budget::Spending;
use parking_lot::RwLock;

/// Where a budget stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// What status shows.
    pub spending: Spending,
    /// Nothing is left, or not enough for the last call that was asked for.
    pub exhausted: bool,
}

/// Where the budgets stand, by UID, some seconds old.
#[derive(Debug, Default)]
pub(crate) struct Figures(RwLock<HashMap<String, Figure>>);

impl Figures {
    /// Where a budget stands.
    pub(crate) fn get(&self, budget_uid: &str) -> Option<Figure> {
        self.0.read().get(budget_uid).cloned()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.0.write().clear();
    }

    /// Takes the place of all figures before. Answers the budgets whose figures are others than before.
    pub(crate) fn replace(&self, figures: HashMap<String, Figure>) -> Vec<String> {
        let mut all = self.0.write();
        let changed =
            figures.iter().filter(|(uid, figure)| all.get(*uid) != Some(*figure)).map(|(uid, _)| uid.clone()).collect();
        *all = figures;
        changed
    }
}
