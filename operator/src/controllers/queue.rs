//! The queue of a controller. It is fair between tenants: each has a lane of its own, and the lanes take turns, so a tenant
//! with thousands of changed objects delays itself, and another tenant's object waits for one turn. Pure: the clock is an
//! argument.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use tokio::time::Instant;

/// What a controller queues.
pub(super) trait Item: Clone + Eq + Hash {
    /// Returns the name of the lane: the same for all objects of a tenant.
    fn lane(&self) -> &str;
}

/// A queue of items, each of which is in it once.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// Items that can be taken, by lane.
    lanes: HashMap<String, VecDeque<T>>,
    /// Lanes that have items, in the order of their turns.
    turns: VecDeque<String>,
    waiting: HashSet<T>,
    /// Items that can be taken later, by time.
    delayed: BTreeMap<(Instant, u64), T>,
    delays: HashMap<T, (Instant, u64)>,
    /// Items that were taken and not finished, and whether each was pushed again meanwhile.
    taken: HashMap<T, bool>,
    taken_of_lane: HashMap<String, usize>,
    most_of_lane: usize,
    number: u64,
}

impl<T: Item> FairQueue<T> {
    /// Returns an empty queue. At most `most_of_lane` items of one lane are taken at a time.
    pub(super) fn new(most_of_lane: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            waiting: HashSet::new(),
            delayed: BTreeMap::new(),
            delays: HashMap::new(),
            taken: HashMap::new(),
            taken_of_lane: HashMap::new(),
            most_of_lane,
            number: 0,
        }
    }

    /// Adds an item. One that is taken at the moment is added once it is finished.
    pub(super) fn push(&mut self, item: T) {
        if let Some(again) = self.taken.get_mut(&item) {
            *again = true;
            return;
        }
        if let Some(key) = self.delays.remove(&item) {
            self.delayed.remove(&key);
        }
        if !self.waiting.insert(item.clone()) {
            return;
        }
        let lane = self.lanes.entry(item.lane().to_owned()).or_default();
        if lane.is_empty() {
            self.turns.push_back(item.lane().to_owned());
        }
        lane.push_back(item);
    }

    /// Adds an item at a later time, unless it is added before.
    fn push_at(&mut self, item: T, at: Instant) {
        if self.waiting.contains(&item) || self.delays.get(&item).is_some_and(|(before, _)| *before <= at) {
            return;
        }
        if let Some(key) = self.delays.remove(&item) {
            self.delayed.remove(&key);
        }
        self.number += 1;
        self.delays.insert(item.clone(), (at, self.number));
        self.delayed.insert((at, self.number), item);
    }

    /// Takes the next item: one of the lane whose turn it is.
    pub(super) fn take(&mut self) -> Option<T> {
        for _ in 0..self.turns.len() {
            let lane = self.turns.pop_front()?;
            if self.taken_of_lane.get(&lane).is_some_and(|taken| *taken >= self.most_of_lane) {
                self.turns.push_back(lane);
                continue;
            }
            let items = self.lanes.get_mut(&lane)?;
            let item = items.pop_front()?;
            if items.is_empty() {
                self.lanes.remove(&lane);
            } else {
                self.turns.push_back(lane.clone());
            }
            self.waiting.remove(&item);
            self.taken.insert(item.clone(), false);
            *self.taken_of_lane.entry(lane).or_default() += 1;
            return Some(item);
        }
        None
    }

    /// Finishes an item that was taken, and adds it again at `next`, or at once if it was pushed meanwhile.
    pub(super) fn finish(&mut self, item: T, next: Option<Instant>) {
        if let Some(taken) = self.taken_of_lane.get_mut(item.lane()) {
            *taken -= 1;
            if *taken == 0 {
                self.taken_of_lane.remove(item.lane());
            }
        }
        match (self.taken.remove(&item), next) {
            (Some(true), _) => self.push(item),
            (_, Some(next)) => self.push_at(item, next),
            _ => {}
        }
    }

    /// Returns when the next delayed item is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.keys().next().map(|(at, _)| *at)
    }

    /// Adds the delayed items that are due.
    pub(super) fn push_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let item = entry.remove();
            self.delays.remove(&item);
            self.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl Item for (&'static str, u32) {
        fn lane(&self) -> &str {
            self.0
        }
    }

    fn queue(most_of_lane: usize) -> FairQueue<(&'static str, u32)> {
        FairQueue::new(most_of_lane)
    }

    #[test]
    fn a_tenants_mass_delays_another_tenant_by_one_turn() {
        let mut queue = queue(100);
        (0..10_000).for_each(|number| queue.push(("acme", number)));
        queue.take();
        queue.push(("beta", 1));
        queue.push(("beta", 2));
        let next: Vec<_> = (0..4).filter_map(|_| queue.take()).map(|(lane, _)| lane).collect();
        assert_eq!(next, ["acme", "beta", "acme", "beta"]);
    }

    #[test]
    fn a_tenant_whose_reconciles_hang_leaves_room_for_others() {
        let mut queue = queue(2);
        (0..5).for_each(|number| queue.push(("acme", number)));
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some(("acme", 0)), Some(("acme", 1)), None));
        queue.push(("beta", 1));
        assert_eq!((queue.take(), queue.take()), (Some(("beta", 1)), None));
        queue.finish(("acme", 0), None);
        assert_eq!(queue.take(), Some(("acme", 2)));
    }

    #[test]
    fn an_item_is_queued_once_and_again_after_it_was_pushed_while_taken() {
        let mut queue = queue(9);
        queue.push(("acme", 1));
        queue.push(("acme", 1));
        assert_eq!((queue.take(), queue.take()), (Some(("acme", 1)), None));
        queue.push(("acme", 1));
        assert_eq!(queue.take(), None, "it is being reconciled");
        queue.finish(("acme", 1), Some(Instant::now() + Duration::from_secs(60)));
        assert_eq!(queue.take(), Some(("acme", 1)));
        queue.finish(("acme", 1), None);
        assert_eq!((queue.take(), queue.next_due()), (None, None));
    }

    #[test]
    fn a_delayed_item_is_due_at_its_earliest_time() {
        let (mut queue, now) = (queue(9), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        queue.push(("acme", 1));
        queue.take();
        queue.finish(("acme", 1), Some(at(60)));
        queue.push_at(("acme", 1), at(90));
        queue.push_at(("acme", 1), at(30));
        assert_eq!(queue.next_due(), Some(at(30)));
        queue.push_due(at(29));
        assert_eq!(queue.take(), None);
        queue.push_due(at(30));
        assert_eq!((queue.take(), queue.next_due()), (Some(("acme", 1)), None));
        queue.finish(("acme", 1), Some(at(60)));
        queue.push(("acme", 1));
        assert_eq!((queue.take(), queue.next_due()), (Some(("acme", 1)), None), "a push replaces the delay");
    }
}
