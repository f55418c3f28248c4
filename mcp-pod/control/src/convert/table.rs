//! Shares equal parts of a policy.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// The distinct parts of one kind, in the order of their first use.
#[derive(Debug)]
pub(super) struct Table<T: ?Sized> {
    /// Positions by value.
    positions: HashMap<Arc<T>, u32>,
    /// Positions by address, to find a part that is already shared without reading it.
    addresses: HashMap<*const T, u32>,
}

impl<T: ?Sized> Default for Table<T> {
    fn default() -> Self {
        Self { positions: HashMap::new(), addresses: HashMap::new() }
    }
}

impl<T: ?Sized + Hash + Eq> Table<T> {
    /// Returns the position of a part, and whether it is new.
    pub(super) fn position(&mut self, part: &Arc<T>) -> (u32, bool) {
        if let Some(position) = self.addresses.get(&Arc::as_ptr(part)) {
            return (*position, false);
        }
        // Not reachable: there is no memory for so many parts.
        let next = u32::try_from(self.positions.len()).unwrap_or(u32::MAX);
        let position = *self.positions.entry(Arc::clone(part)).or_insert(next);
        self.addresses.insert(Arc::as_ptr(part), position);
        (position, position == next)
    }
}

/// Parts of one kind that were read, each once.
#[derive(Debug)]
pub(super) struct Known<T: ?Sized>(HashSet<Arc<T>>);

impl<T: ?Sized> Default for Known<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: ?Sized + Hash + Eq> Known<T> {
    /// Returns the part, shared with the equal one that was read before.
    pub(super) fn share<V: Borrow<T> + Into<Arc<T>>>(&mut self, part: V) -> Arc<T> {
        if let Some(known) = self.0.get(part.borrow()) {
            return Arc::clone(known);
        }
        let part: Arc<T> = part.into();
        self.0.insert(Arc::clone(&part));
        part
    }
}
