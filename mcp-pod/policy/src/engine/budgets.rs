//! Finds the budgets that cover the calls of a principal on a server. Most principals have the same ones, so each
//! distinct result is kept once.

use std::sync::Arc;

use foldhash::HashMap;

use crate::class::Class;
use crate::model::{Budget, Uid};

/// For each class, the indices of the budgets that cover a call.
pub(super) type BudgetsByClass = [Box<[usize]>; 3];

/// A set of budgets: one bit for each, by index.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn empty(budgets: usize) -> Self {
        Self(vec![0; budgets.div_ceil(64)])
    }

    fn insert(&mut self, budget: usize) {
        if let Some(word) = self.0.get_mut(budget / 64) {
            *word |= 1 << (budget % 64);
        }
    }

    fn combine(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(left, right)| combine(*left, *right)).collect())
    }

    fn indices(&self) -> Box<[usize]> {
        let words = self.0.iter().enumerate();
        let bits = words
            .flat_map(|(word, bits)| (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit));
        bits.collect()
    }
}

/// The budgets by one part of their selectors.
struct Selected<'p> {
    /// Budgets without this part: they select everything.
    all: Set,
    /// Budgets by the UIDs that they select.
    by_uid: HashMap<&'p str, Set>,
}

impl<'p> Selected<'p> {
    fn new(budgets: &'p [Budget], part: impl Fn(&'p Budget) -> Option<&'p Vec<Uid>>) -> Self {
        let mut selected = Self { all: Set::empty(budgets.len()), by_uid: HashMap::default() };
        for (index, budget) in budgets.iter().enumerate() {
            match part(budget) {
                None => selected.all.insert(index),
                Some(uids) => uids.iter().for_each(|uid| {
                    selected.by_uid.entry(uid).or_insert_with(|| Set::empty(budgets.len())).insert(index);
                }),
            }
        }
        selected
    }

    fn of(&self, uid: &str) -> Set {
        match self.by_uid.get(uid) {
            Some(selected) => self.all.combine(selected, |left, right| left | right),
            None => self.all.clone(),
        }
    }
}

/// The budgets of a policy by what they select.
pub(super) struct BudgetIndex<'p> {
    principals: Selected<'p>,
    servers: Selected<'p>,
    classes: [Set; 3],
    known: HashMap<Set, Arc<BudgetsByClass>>,
}

impl<'p> BudgetIndex<'p> {
    pub(super) fn new(budgets: &'p [Budget]) -> Self {
        let of_class = |class: Class| {
            let mut set = Set::empty(budgets.len());
            let covers =
                |budget: &Budget| budget.selector.classes.as_ref().is_none_or(|classes| classes.contains(&class));
            budgets.iter().enumerate().filter(|(_, budget)| covers(budget)).for_each(|(index, _)| set.insert(index));
            set
        };
        Self {
            principals: Selected::new(budgets, |budget| budget.selector.principals.as_ref()),
            servers: Selected::new(budgets, |budget| budget.selector.servers.as_ref()),
            classes: Class::ALL.map(of_class),
            known: HashMap::default(),
        }
    }

    /// Returns the budgets that cover the calls of a principal on a server.
    pub(super) fn of(&mut self, principal_uid: &str, server_uid: &str) -> Arc<BudgetsByClass> {
        let both = |left, right| left & right;
        let set = self.principals.of(principal_uid).combine(&self.servers.of(server_uid), both);
        let Self { classes, known, .. } = self;
        let by_class = |set: &Set| Arc::new(classes.each_ref().map(|class| set.combine(class, both).indices()));
        known.entry(set).or_insert_with_key(by_class).clone()
    }
}
