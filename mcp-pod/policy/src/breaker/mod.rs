//! Circuit breakers of tools: calls that would most likely fail are refused until the tool had time to recover.
//!
//! Each tool of each server has one breaker for every principal, the *own* breaker ([`own`]), and one for all of them, the
//! *shared* breaker ([`shared`]). Both are closed at first, open when too many of the latest calls failed, and become
//! half-open after [`Breaker::open_for`](crate::model::Breaker): then they let a bounded number of probes through, whose
//! results close or open them again.
//!
//! - A call fails if the server cannot be reached, breaks the connection, does not answer in time or answers with
//!   something else than MCP. What a tool itself reports as an error (`isError`) is an answer.
//! - A principal's failures and slow calls open its own breaker. Other principals never notice.
//! - The shared breaker opens only on failures that several principals saw: the calls of all principals but the one whose
//!   calls failed most have to justify it too ([`window`]). So no single agent can open it, however many calls it
//!   makes fail, and none can keep it open. Two agents that conspire can.
//!
//! A tool without failures has no state, and its calls take no lock. State is dropped when the tool was not called for
//! [`FORGET_AFTER`]. It is keyed by UIDs and outlives policies: a policy changes the settings for the calls that it
//! decides, and neither opens nor closes a breaker.

mod cycle;
mod own;
mod shared;
mod tools;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::HashMap;

use crate::denial::Denial;
use crate::model::Breaker;
use crate::reason::Reason;
use crate::tick::Tick;

use cycle::Phase;
use own::Own;
use shared::Shared;

pub use tools::{Breakers, ToolKey};

/// Time after the last call for which a breaker keeps what it knows.
pub const FORGET_AFTER: Duration = Duration::from_mins(10);
/// Retry time while all probes are on their way: it is unknown when the first one ends.
const PROBE_RETRY: Duration = Duration::from_secs(1);

/// UID of a principal, shared by what refers to it.
type Uid = Arc<str>;

/// State of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// A few calls pass, to find out whether the tool works again.
    HalfOpen,
    /// Calls are refused.
    Open,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// Returns the name for labels and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// How a forwarded call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The server answered, with a result or an error.
    Answered,
    /// The server could not be reached, or its answer could not be used.
    Failed,
    /// The caller did not wait for the answer.
    Cancelled,
}

/// Breakers that changed their state, with their new states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "changes have to be counted"]
pub struct Changes {
    /// The breaker of the caller.
    pub own: Option<BreakerState>,
    /// The breaker of all callers.
    pub shared: Option<BreakerState>,
}

/// What time did to the shared breaker of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// It is half-open now.
    HalfOpened,
    /// It has no state any more, because the tool was not called for long or no call of it failed.
    Forgotten {
        /// Whether it was not closed before.
        closed: bool,
    },
}

/// Why a breaker lets no call through, and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Closed {
    retry_after: Duration,
}

/// The breakers of one tool.
#[derive(Debug, Default)]
pub struct ToolBreaker {
    /// Whether `state` has anything in it. Calls that end well do not lock it otherwise.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Absent while no call has failed.
    shared: Option<Shared>,
    /// Own breakers of the principals whose calls failed or were slow.
    own: HashMap<Uid, Own>,
}

/// The breakers of one tool as one principal meets them, with the settings of one policy.
#[derive(Clone, Debug)]
pub struct CallerBreaker {
    tool: Arc<ToolBreaker>,
    principal: Uid,
    settings: Breaker,
}

/// Permission to make one call. Whatever becomes of the call, dropping it frees the place of a probe.
#[must_use = "dropping it frees the place of a probe"]
#[derive(Debug)]
pub struct Pass(Option<Box<Probe>>);

/// Places of a call among the probes of half-open breakers.
#[derive(Debug)]
struct Probe {
    tool: Arc<ToolBreaker>,
    principal: Uid,
    /// Number of the half-open phase of the own breaker.
    own: Option<u64>,
    /// Number of the half-open phase of the shared breaker.
    shared: Option<u64>,
}

/// What keeps a caller from calling a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    /// State of the breaker: open or half-open.
    pub state: BreakerState,
    /// Whether it is the shared breaker, which concerns all callers.
    pub shared: bool,
    /// Time after which a call can pass.
    pub retry_after: Duration,
}

impl ToolBreaker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_untroubled(&self) -> bool {
        !self.troubled.load(Ordering::Acquire)
    }

    /// Notes whether there is any state, after it changed.
    fn note_trouble(&self, state: &State) {
        self.troubled.store(state.shared.is_some() || !state.own.is_empty(), Ordering::Release);
    }

    /// Returns what keeps the principal with that UID from calling the tool now, without changing anything.
    fn status(&self, now: Tick, principal: &str) -> Option<BreakerStatus> {
        if self.is_untroubled() {
            return None;
        }
        let state = self.lock();
        let status = |phase: Phase, shared| match phase {
            Phase::Closed => None,
            Phase::Open { until } if now < until => {
                Some(BreakerStatus { state: BreakerState::Open, shared, retry_after: until.since(now) })
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {
                Some(BreakerStatus { state: BreakerState::HalfOpen, shared, retry_after: Duration::ZERO })
            }
        };
        let own = state.own.get(principal).and_then(|own| status(own.cycle.phase(), false));
        let shared = state.shared.as_ref().and_then(|shared| status(shared.cycle.phase(), true));
        own.into_iter().chain(shared).max_by_key(|status| status.retry_after)
    }

    /// Closes the own breaker of the principal with that UID, and forgets its calls.
    fn clear(&self, principal: &str) -> Changes {
        if self.is_untroubled() {
            return Changes::default();
        }
        Changes { own: self.lock().own.get_mut(principal).and_then(Own::close), shared: None }
    }

    /// Drops what is out of date. Returns what time did to the shared breaker.
    fn sweep(&self, now: Tick) -> Option<Swept> {
        if self.is_untroubled() {
            return None;
        }
        let mut state = self.lock();
        state.own.retain(|_, own| !own.is_forgotten(now));
        let mut swept = None;
        if let Some(shared) = &mut state.shared {
            swept = shared.cycle.advance(now).map(|_| Swept::HalfOpened);
            if shared.is_forgotten(now) {
                swept = Some(Swept::Forgotten { closed: !shared.cycle.is_closed() });
                state.shared = None;
            }
        }
        self.note_trouble(&state);
        swept
    }
}

impl CallerBreaker {
    /// Returns the breakers of a tool for calls of the principal with that UID.
    pub fn new(tool: Arc<ToolBreaker>, principal: &str, settings: Breaker) -> Self {
        Self { tool, principal: principal.into(), settings }
    }

    /// Admits a call, or returns the denial with the time after which both breakers let a call through.
    pub fn admit(&self, now: Tick) -> (Result<Pass, Denial>, Changes) {
        if self.tool.is_untroubled() {
            return (Ok(Pass(None)), Changes::default());
        }
        let limit = self.settings.half_open_calls;
        let mut state = self.tool.lock();
        let State { shared, own } = &mut *state;
        let (mut own, mut shared) = (own.get_mut(&*self.principal), shared.as_mut());
        let changes = Changes {
            own: own.as_mut().and_then(|own| own.cycle.advance(now)),
            shared: shared.as_mut().and_then(|shared| shared.cycle.advance(now)),
        };
        let own_room = own.as_ref().map_or(Ok(()), |own| own.has_room(now, limit));
        let shared_room = shared.as_ref().map_or(Ok(()), |shared| shared.has_room(now, limit, &self.principal));
        if let Some(denial) = denial(own_room.err(), shared_room.err()) {
            return (Err(denial), changes);
        }
        let own = own.and_then(Own::take);
        let shared = shared.and_then(|shared| shared.take(&self.principal));
        drop(state);
        let probe = || Probe { tool: Arc::clone(&self.tool), principal: Arc::clone(&self.principal), own, shared };
        let is_probe = own.is_some() || shared.is_some();
        (Ok(Pass(is_probe.then(|| Box::new(probe())))), changes)
    }

    /// Records the end of a forwarded call that took this long at its server.
    pub fn record(&self, now: Tick, pass: Pass, end: CallEnd, took: Duration) -> Changes {
        let slow = self.settings.slow_calls.as_ref().is_some_and(|slow| took >= slow.duration);
        let (failed, known) = match end {
            CallEnd::Answered => (false, true),
            CallEnd::Failed => (true, true),
            // Cancelling a call just before it is slow or fails shows nothing; cancelling a slow one hides nothing.
            CallEnd::Cancelled => (false, slow),
        };
        if !known || !failed && !slow && pass.0.is_none() && self.tool.is_untroubled() {
            return Changes::default();
        }
        let (own_phase, shared_phase) = pass.0.as_ref().map_or((None, None), |probe| (probe.own, probe.shared));
        let mut changes = Changes::default();
        let mut state = self.tool.lock();
        if failed || slow {
            state.own.entry(Arc::clone(&self.principal)).or_default();
        }
        if let Some(own) = state.own.get_mut(&*self.principal) {
            changes.own = own.record(now, &self.settings, own_phase, failed, slow);
        }
        if end != CallEnd::Cancelled {
            if failed {
                state.shared.get_or_insert_default();
            }
            if let Some(shared) = &mut state.shared {
                changes.shared = shared.record(now, &self.settings, shared_phase, &self.principal, failed);
            }
            // A principal whose probe failed makes room for the probes of others.
            if failed
                && shared_phase.is_some()
                && let Some(own) = state.own.get_mut(&*self.principal)
                && own.cycle.is_closed()
            {
                changes.own = Some(own.open(now, &self.settings));
            }
        }
        self.tool.note_trouble(&state);
        drop(state);
        drop(pass);
        changes
    }
}

/// Returns the denial by the breaker that lets a call through later.
fn denial(own: Option<Closed>, shared: Option<Closed>) -> Option<Denial> {
    let (closed, limit) = match (own, shared) {
        (Some(own), Some(shared)) if own.retry_after >= shared.retry_after => (own, OWN_LIMIT),
        (_, Some(shared)) => (shared, SHARED_LIMIT),
        (Some(own), None) => (own, OWN_LIMIT),
        (None, None) => return None,
    };
    let denial = Denial::new(Reason::BreakerOpen).with_limit(limit);
    Some(Denial { retry_after: Some(closed.retry_after), ..denial })
}

const OWN_LIMIT: &str = "too many of this principal's latest calls of the tool failed or were slow";
const SHARED_LIMIT: &str = "too many of the latest calls of the tool failed, also those of other principals";

impl Drop for Probe {
    fn drop(&mut self) {
        let mut state = self.tool.lock();
        if self.own.is_some()
            && let Some(own) = state.own.get_mut(&*self.principal)
        {
            own.give_back();
        }
        if self.shared.is_some()
            && let Some(shared) = &mut state.shared
        {
            shared.give_back(&self.principal);
        }
    }
}

#[cfg(test)]
mod tests;
