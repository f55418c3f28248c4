//! Finds agents that go round in circles, by the results of their calls.
//!
//! [`Loops::check`] refuses a call that continues a loop, [`Loops::settle`] records the result of a call and warns its
//! caller. Both are about one principal over all of its servers; [`rules`] finds loops in its [`history`], [`ladder`]
//! goes from a warning to growing pauses to a refusal. [`fingerprint`] is all that is kept of a result.
//!
//! The state of a principal has a fixed size, and a lock of its own. It is dropped once it holds nothing against the
//! principal, so that waiting is the only way out of a refusal.

mod fingerprint;
mod history;
mod ladder;
mod rules;
mod settings;
mod text;
mod words;

use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use foldhash::HashMap;

use crate::json::Value;
use crate::tick::Tick;
use crate::units::limits;
use history::{Entry, History, News};
use ladder::{Alarms, Ended};

pub use fingerprint::Fingerprint;
pub use history::CallKey;
pub use ladder::Evidence;
pub use rules::Kind;
pub use settings::{LoopSettings, Mode, Polls};

/// Number of principals with a state at a time: 64 MiB.
const STATES: usize = 16 * 1024;
/// Age of the latest call from which on a state holds nothing.
const LONGEST_WINDOW: Duration = limits::LOOP_WINDOW.max.get();

/// The loops of all principals of a tenant, by their UIDs.
#[derive(Debug)]
pub struct Loops {
    hasher: fingerprint::Hasher,
    states: RwLock<HashMap<String, Arc<Mutex<State>>>>,
    capacity: usize,
}

/// What is known about the latest calls of one principal.
#[derive(Debug, Default)]
struct State {
    history: History,
    alarms: Alarms,
    /// Those of servers in the mode Monitor, which refuse nothing.
    monitored: Alarms,
}

impl State {
    const fn alarms(&mut self, mode: Mode) -> &mut Alarms {
        match mode {
            Mode::Enforce => &mut self.alarms,
            Mode::Monitor | Mode::Disabled => &mut self.monitored,
        }
    }
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    pub key: CallKey,
    pub result: Fingerprint,
    /// When the call was admitted.
    pub admitted: Tick,
    /// Whether the tool may change something, according to its class.
    pub changes: bool,
    pub polls: Polls,
}

impl Default for Loops {
    fn default() -> Self {
        Self::new()
    }
}

impl Loops {
    /// Creates a detector that has seen no calls.
    pub fn new() -> Self {
        Self::with_capacity(STATES)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { hasher: fingerprint::Hasher::default(), states: RwLock::default(), capacity }
    }

    /// Forgets the principals whose UIDs are not among these.
    pub fn retain<'a>(&self, principals: impl Iterator<Item = &'a str>) {
        let known: foldhash::HashSet<&str> = principals.collect();
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        states.retain(|uid, _| known.contains(uid.as_str()));
    }

    /// Returns the key of a call. The order of an object's members does not matter.
    pub fn key(&self, server_uid: &str, tool: &str, arguments: Option<&Value<'_>>) -> CallKey {
        let tool = self.hasher.hash_one((server_uid, tool));
        CallKey { tool, call: self.hasher.hash_one((tool, arguments.map_or(0, |value| self.value(value)))) }
    }

    fn value(&self, value: &Value<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match value {
            Value::Null => 0_u8.hash(&mut hasher),
            Value::Bool(truth) => (1_u8, truth).hash(&mut hasher),
            Value::Integer(number) => (2_u8, number).hash(&mut hasher),
            Value::Number(number) => (3_u8, number.to_bits()).hash(&mut hasher),
            Value::String(text) => (4_u8, text).hash(&mut hasher),
            Value::Array(items) => {
                (5_u8, items.len()).hash(&mut hasher);
                for item in items {
                    self.value(item).hash(&mut hasher);
                }
            }
            // An empty object is the same as no arguments.
            Value::Object(members) if members.is_empty() => return 0,
            Value::Object(members) => {
                let each = members.iter().map(|(name, value)| self.hasher.hash_one((name, self.value(value))));
                (6_u8, each.fold(0_u64, u64::wrapping_add)).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Returns the fingerprint of a result (`text` as the server wrote it) of a call with these arguments, both in JSON.
    pub fn fingerprint(&self, text: &[u8], arguments: &[u8], is_error: bool) -> Fingerprint {
        Fingerprint::of(&self.hasher, text, arguments, is_error)
    }

    /// Returns the fingerprint of a call that ended without a result, for this reason.
    pub fn failure(&self, reason: &str) -> Fingerprint {
        Fingerprint::failure(&self.hasher, reason)
    }

    /// Checks whether a call of a principal (by UID) may be made now. The error is why it is part of a loop. In the mode
    /// Monitor the caller ignores it.
    pub fn check(&self, now: Tick, principal: &str, mode: Mode, key: CallKey) -> Result<(), Evidence> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = states.get(principal).cloned() else { return Ok(()) };
        drop(states);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.alarms(mode).check(now, key)
    }

    /// Records a call that has ended, and returns what its caller is told, if it is part of a loop.
    pub fn settle(&self, now: Tick, principal: &str, settings: &LoopSettings, settled: &Settled) -> Option<Evidence> {
        let state = self.state(now, principal);
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let history = &mut state.history;
        let Settled { key, result, admitted, changes, polls } = *settled;
        let news = history.news(key, &result, changes, now, settings.window);
        history.push(Entry { key, result, admitted, settled: now, news, tolerated: polls == Polls::Tolerated });
        let found = rules::find(history, now, settings);
        let ended = Ended { with_news: news == News::New, successfully: !result.signs.failing };
        state.alarms(settings.mode).record(now, key, found, ended, settings.cool_down)
    }

    /// Returns the state of a principal. Makes room for it if necessary.
    fn state(&self, now: Tick, principal: &str) -> Arc<Mutex<State>> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = states.get(principal) {
            return Arc::clone(state);
        }
        drop(states);
        let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
        if states.len() >= self.capacity {
            make_room(&mut states, now, self.capacity);
        }
        match states.entry(principal.to_owned()) {
            Slot::Occupied(known) => Arc::clone(known.get()),
            Slot::Vacant(slot) => Arc::clone(slot.insert(Arc::default())),
        }
    }
}

/// Drops the states that hold nothing any more. If all of them do, drops those that were not used for the longest time
/// among those that refuse nothing: a principal that calls cannot get rid of its own state.
fn make_room(states: &mut HashMap<String, Arc<Mutex<State>>>, now: Tick, capacity: usize) {
    let mut used: Vec<(bool, Tick, String)> = Vec::with_capacity(states.len());
    states.retain(|uid, state| {
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let last = state.history.last().unwrap_or_default();
        let keep = state.alarms.any(now) || now.since(last) <= LONGEST_WINDOW;
        if keep {
            used.push((state.alarms.any(now), last, uid.clone()));
        }
        keep
    });
    let excess = (states.len() + 1).saturating_sub(capacity).max(1);
    if states.len() >= capacity {
        used.sort_unstable();
        for (_, _, uid) in used.into_iter().take(excess.max(capacity / 16)) {
            states.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests;
