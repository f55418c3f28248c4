//! The model: which steps are possible in a state, and what must be true in every state.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_fleet_ledger::commit::Step;
use mcp_fleet_policy::budget::Charge;
use mcp_fleet_policy::model::{Budget, BudgetMode, Period, Selector, StaleAfter, TenantLimits, TenantPolicy};
use stateright::{Model, Property};

use crate::defect::Defect;
use crate::faults::Fault;
use crate::operator::{Operator, Work, grace};
use crate::shared::Shared;
use crate::state::{Key, Left, Seen, State};

/// Times, in milliseconds. All periods end 150 seconds after the first one.
const TIMES: [i64; 5] = [0, 2_000, 100_000, 190_000, 1_000_000];
const PERIOD_END: i64 = 1_795_046_400;
const BEFORE_PERIOD_END: i64 = 150_000;
/// Index of the time at which every lease is overdue.
pub(crate) const LAST_TIME: usize = TIMES.len() - 1;

pub(crate) const SPENT_IS_CHARGED: &str = "what is spent is charged";
pub(crate) const WITHIN_LIMIT: &str = "no more is charged than the highest limit at a grant";
pub(crate) const SETTLED_ONCE: &str = "no call is settled twice";
pub(crate) const FORFEITED: &str = "a lease is forfeited";
pub(crate) const ALL_SPENT: &str = "a whole budget is spent";
pub(crate) const CONFLICT: &str = "a write conflicts with another";
pub(crate) const DRAINS: &str = "without faults the fleet drains, and loses nothing that it need not";

/// How large the model is.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) operators: usize,
    pub(crate) gateways: usize,
    /// By budget: the limits on calls that come into force one after the other.
    pub(crate) limits: Vec<Vec<u64>>,
    /// Attempts to make a call. The first one asks for a lease.
    pub(crate) attempts: u8,
    pub(crate) faults: u8,
    pub(crate) kinds: Vec<Fault>,
    /// Indices of the times that are visited.
    pub(crate) times: Vec<usize>,
    /// The states from which draining is tried: one of this many; none for none.
    pub(crate) drain_one_in: Option<u64>,
    /// No state needs more steps to drain.
    pub(crate) most_drain_steps: usize,
}

/// Operators, gateways and an API server.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) bounds: Bounds,
    pub(crate) defect: Option<Defect>,
    pub(crate) budgets: Vec<Budget>,
    pub(crate) policy: TenantPolicy,
    pub(crate) drained: AtomicUsize,
    pub(crate) most_steps: AtomicUsize,
}

/// A step. Indices of operators and gateways are named by their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Call {
        gateway: usize,
    },
    Finish {
        gateway: usize,
        charge: Charge,
    },
    Tick {
        gateway: usize,
    },
    DeliverToGateway {
        message: usize,
    },
    DeliverToOperator {
        message: usize,
        operator: usize,
    },
    Access {
        operator: usize,
    },
    Expire {
        operator: usize,
    },
    ChangeLimits {
        operator: usize,
    },
    PassTime,
    // Faults.
    LoseAnswerOfStore {
        operator: usize,
        applied: bool,
    },
    /// `applied` says whether a write under way happens.
    CrashOperator {
        operator: usize,
        applied: bool,
    },
    CrashGateway {
        gateway: usize,
    },
    BreakStream {
        gateway: usize,
        lose: bool,
    },
    Duplicate {
        message: usize,
    },
    StepClock {
        operator: usize,
    },
    ReportForPredecessor {
        gateway: usize,
    },
}

impl Fleet {
    pub(crate) fn new(bounds: Bounds, defect: Option<Defect>) -> Self {
        let budget = |(number, limits): (usize, &Vec<u64>)| Budget {
            name: format!("budget-{number}"),
            uid: number.to_string(),
            selector: Selector::default(),
            period: if number == 0 { Period::Day } else { Period::Hour },
            amount: None,
            calls: Some(limits[0]),
            mode: BudgetMode::Enforce,
            top_up: None,
        };
        let budgets: Vec<Budget> = bounds.limits.iter().enumerate().map(budget).collect();
        let policy = policy(budgets.clone());
        Self { bounds, defect, budgets, policy, drained: AtomicUsize::new(0), most_steps: AtomicUsize::new(0) }
    }

    pub(crate) fn elapsed_ms(&self, time: usize) -> i64 {
        TIMES[time]
    }

    pub(crate) fn now_ms(&self, time: usize) -> i64 {
        PERIOD_END * 1000 - BEFORE_PERIOD_END + TIMES[time]
    }

    pub(crate) fn number_of(&self, budget_uid: &str) -> usize {
        budget_uid.parse().unwrap()
    }

    fn is_overdue(&self, state: &State, operator: usize) -> Option<Key> {
        let now = self.operator_now(state, operator);
        let mut copies = state.operators[operator].copies.iter();
        let overdue = copies.find(|(_, copy)| {
            let mut leases = copy.book.iter().flat_map(|book| &book.leases);
            leases.any(|lease| lease.deadline + grace() <= now)
        });
        overdue.map(|(key, _)| *key)
    }

    fn holds(&self, state: &State, claim: impl Fn(&Key, u64, u64, u64) -> bool) -> bool {
        let zero = |key: &Key| (*key, 0, 0);
        let stored = state.store.iter().map(|(key, book)| (*key, book.charged().calls, book.settled().calls));
        let missing = state.seen.begun.keys().filter(|key| !state.store.contains_key(key)).map(zero);
        stored.chain(missing).all(|(key, charged, settled)| claim(&key, charged, settled, state.seen.audited(&key)))
    }

    fn drains(&self, state: &State) -> bool {
        if !self.bounds.drain_one_in.is_some_and(|one_in| crate::drain::is_chosen(state, one_in)) {
            return true;
        }
        match self.drain(state.clone()) {
            Ok(steps) => {
                self.drained.fetch_add(1, Ordering::Relaxed);
                self.most_steps.fetch_max(steps, Ordering::Relaxed);
                true
            }
            Err(reason) => {
                println!("does not drain: {reason}");
                false
            }
        }
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Bounds { operators, gateways, attempts, faults, .. } = self.bounds;
        vec![State {
            store: std::collections::BTreeMap::new(),
            operators: vec![Shared::new(Operator::default()); operators],
            gateways: (0..gateways).map(|_| Shared::new(self.new_gateway(0, 0))).collect(),
            network: Vec::new(),
            time: 0,
            arrived: std::collections::BTreeMap::new(),
            left: Left { attempts, faults },
            seen: Seen::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (gateway, its) in state.gateways.iter().enumerate() {
            // Gateways differ in nothing but their names, so the first to call is the first.
            let is_next = state.gateways[..gateway].iter().all(|gateway| gateway.used);
            if state.left.attempts > 0 && its.held.is_empty() && is_next {
                actions.push(Action::Call { gateway });
            }
            if !its.held.is_empty() {
                actions.push(Action::Finish { gateway, charge: Charge::Full });
            }
            if its.ticked != state.time {
                actions.push(Action::Tick { gateway });
            }
        }
        for (message, its) in state.network.iter().enumerate() {
            // Equal messages lead to equal states.
            if message > 0 && state.network[message - 1] == *its {
                continue;
            }
            if its.is_to_ledger() {
                actions
                    .extend((0..self.bounds.operators).map(|operator| Action::DeliverToOperator { message, operator }));
            } else {
                actions.push(Action::DeliverToGateway { message });
            }
        }
        for (operator, its) in state.operators.iter().enumerate() {
            if its.busy.is_some() {
                actions.push(Action::Access { operator });
            } else if self.is_overdue(state, operator).is_some() {
                actions.push(Action::Expire { operator });
            }
            if self.bounds.limits.iter().any(|limits| its.limits + 1 < limits.len()) {
                actions.push(Action::ChangeLimits { operator });
            }
        }
        if self.bounds.times.iter().any(|time| *time > state.time) {
            actions.push(Action::PassTime);
        }
        if state.left.faults > 0 {
            let mut faults = Vec::new();
            self.faults(state, &mut faults);
            let allowed = faults.into_iter().filter(|(kind, _)| self.bounds.kinds.contains(kind));
            actions.extend(allowed.map(|(_, action)| action));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        let state = &mut next;
        match action {
            Action::Call { gateway } => {
                if !self.call(state, gateway) {
                    return None;
                }
            }
            Action::Finish { gateway, charge: Charge::Full } => self.finish(state, gateway, Charge::Full),
            Action::Tick { gateway } => self.tick_gateway(state, gateway),
            Action::DeliverToGateway { message } => {
                let message = state.network.remove(message);
                self.deliver(state, &message);
            }
            Action::DeliverToOperator { message, operator } => {
                let message = state.network.remove(message);
                self.receive(state, operator, &message);
            }
            Action::Access { operator } => self.access(state, operator),
            Action::Expire { operator } => {
                state.seen.lossy = true;
                let key = self.is_overdue(state, operator)?;
                self.enqueue(state, operator, key, Work::Expire);
            }
            Action::ChangeLimits { operator } => {
                state.operators[operator].update(|operator| operator.limits += 1);
            }
            Action::PassTime => {
                state.time = *self.bounds.times.iter().find(|time| **time > state.time)?;
                // A request that is repeated in the next period gets a lease of that period, not the one that it had.
                state.seen.lossy |= state.seen.breaks > 0;
            }
            fault => {
                state.left.faults -= 1;
                self.apply_fault(state, fault);
            }
        }
        state.normalize();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SPENT_IS_CHARGED, |fleet: &Self, state: &State| {
                fleet.holds(state, |_, charged, _, audited| audited <= charged)
            }),
            Property::always(WITHIN_LIMIT, |fleet: &Self, state: &State| {
                let highest = |key: &Key| state.seen.highest_limit.get(key).copied().unwrap_or(0);
                fleet.holds(state, |key, charged, _, _| charged <= highest(key))
            }),
            Property::always(SETTLED_ONCE, |fleet: &Self, state: &State| {
                let begun = |key: &Key| state.seen.begun.get(key).copied().unwrap_or(0);
                fleet.holds(state, |key, _, settled, _| settled <= begun(key))
            }),
            Property::always(DRAINS, Self::drains),
            Property::sometimes(FORFEITED, |_: &Self, state: &State| {
                state.store.values().any(|book| !book.forfeits.is_empty())
            }),
            Property::sometimes(ALL_SPENT, |fleet: &Self, state: &State| {
                fleet.bounds.limits[0].first() == state.seen.begun.values().max()
            }),
            Property::sometimes(CONFLICT, |_: &Self, state: &State| {
                state.operators.iter().any(|operator| {
                    operator.busy.as_ref().is_some_and(|busy| {
                        busy.commit.step() == Step::Write
                            && operator.copies.get(&busy.key).is_some_and(|copy| !copy.latest)
                    })
                })
            }),
        ]
    }
}

fn policy(budgets: Vec<Budget>) -> TenantPolicy {
    TenantPolicy {
        tenant: "acme".into(),
        tenant_uid: "t-1".into(),
        generation: 1,
        suspended: false,
        audience: String::new(),
        other_audiences: vec![],
        issuer: String::new(),
        keys: Vec::new(),
        session_key: Vec::new(),
        traffic: TenantLimits::default(),
        built_in_tools: false,
        allowed_origins: Vec::new(),
        stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
        currency: None,
        servers: Vec::new(),
        principals: Vec::new(),
        budgets,
    }
}
