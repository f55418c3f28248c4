//! The model: which steps are possible in a state, and what must be true in every state.

use mcp_fleet_homes::leader::{Leader, Times};
use mcp_fleet_homes::message::{Answer, Beat, Held, Instruction};
use stateright::{Model, Property};

use crate::defect::Defect;
use crate::state::{Left, Message, PRINCIPALS, Process, State, member};

const TIMES: Times = Times { shared: 2, sole: 3, earlier: 3, margin: 1 };

pub(crate) const ONE_HOME: &str = "no principal has two homes";
pub(crate) const SETTLES: &str = "without faults every principal gets a home";
pub(crate) const MOVED: &str = "a principal moves";
pub(crate) const SHARED: &str = "two gateways are homes";
pub(crate) const RECOVERED: &str = "a view of a second leader is applied";
pub(crate) const ALWAYS: [&str; 2] = [ONE_HOME, SETTLES];

/// How large the model is.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) gateways: usize,
    /// The most members that a view has.
    pub(crate) places: usize,
    pub(crate) beats: u8,
    /// The last moment.
    pub(crate) time: u64,
    pub(crate) faults: u8,
    pub(crate) kinds: Vec<Fault>,
    /// Messages under way at the same time.
    pub(crate) under_way: usize,
    pub(crate) changes: u8,
    /// Whether a gateway that drains may give up its lease.
    pub(crate) releases: bool,
    /// The states from which settling is tried: one of this many; none for none.
    pub(crate) settle_one_in: Option<u64>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A message is lost, and the stream that it was on ends.
    Lose,
    /// A message arrives twice.
    Duplicate,
    /// Another operator becomes the leader.
    LeaderEnds,
    /// The process of a gateway ends, and another one starts in the same pod.
    GatewayRestarts,
    /// The clock of a gateway falls behind, by as much as the protocol allows for.
    SlowClock,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] =
        [Self::Lose, Self::Duplicate, Self::LeaderEnds, Self::GatewayRestarts, Self::SlowClock];
}

/// The gateways of one tenant, and the operators.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) bounds: Bounds,
    pub(crate) defect: Option<Defect>,
}

/// A step. Indices are those of gateways and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Connect(usize),
    Beat(usize),
    Deliver(usize),
    ChangeWillingness(usize),
    /// A gateway that drains gives up its lease.
    Release(usize),
    PassTime,
    Lose(usize),
    Duplicate(usize),
    LeaderEnds,
    GatewayRestarts(usize),
    SlowClock(usize),
}

impl Fleet {
    fn times(&self) -> Times {
        let margin = if self.defect == Some(Defect::NoMargin) { 0 } else { TIMES.margin };
        Times { margin, ..TIMES }
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn connect(&self, state: &mut State, gateway: usize) {
        let Process { gateway: its, epoch, .. } = &mut state.gateways[gateway];
        its.connect(state.leader.term());
        // The process that was in the pod before has certainly ended.
        (1..*epoch).for_each(|epoch| state.leader.ended(&member(gateway, epoch)));
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn beat(&self, state: &mut State, gateway: usize) {
        let now = state.clock(gateway);
        let process = &mut state.gateways[gateway];
        let beat = process.gateway.beat(now, process.willing);
        let from = process.gateway.member().clone();
        state.send(Message::Beat { from, beat });
    }

    pub(crate) fn deliver(&self, state: &mut State, message: Message) {
        match message {
            Message::Beat { from, beat } => {
                if let Some(mut answer) = state.leader.receive(state.time, &from, beat) {
                    if self.defect == Some(Defect::NeverApply) && matches!(answer.instruction, Instruction::Apply(_)) {
                        answer.instruction = Instruction::Keep;
                    }
                    state.send(Message::Answer { to: from, answer });
                }
            }
            Message::Answer { to, mut answer } => {
                let Some(index) = state.gateways.iter().position(|process| *process.gateway.member() == to) else {
                    // The process has ended.
                    return;
                };
                let now = state.clock(index);
                self.alter(state, index, &mut answer);
                let process = &mut state.gateways[index];
                if self.defect == Some(Defect::AcknowledgeBeforePreparing)
                    && let (Instruction::Prepare(view), Some(held)) = (&answer.instruction, process.gateway.held(now))
                {
                    let prepared = [&held.prepared[..], std::slice::from_ref(view)].concat();
                    let held = Some(Held { active: held.active.clone(), prepared });
                    let beat = Beat { held, ..process.gateway.beat(now, process.willing) };
                    state.send(Message::Beat { from: to, beat });
                    return;
                }
                process.gateway.receive(now, answer);
                if self.defect == Some(Defect::ForgetPreparedViews) {
                    process.forget_prepared(now);
                }
                if let Some(held) = process.gateway.held(now) {
                    process.last_held = (self.defect == Some(Defect::ContinueEndedLease)).then(|| held.clone());
                }
            }
        }
    }

    /// Changes an answer in such a way that the gateway treats it as the defect would.
    fn alter(&self, state: &mut State, index: usize, answer: &mut Answer) {
        let now = state.clock(index);
        let Process { gateway, willing, last_held, .. } = &mut state.gateways[index];
        match self.defect {
            Some(Defect::LeaseFromReceipt) => answer.number = gateway.beat(now, *willing).number,
            Some(Defect::AnswerOfEarlierTerm) if answer.term < gateway.term() => {
                (answer.term, answer.number) = (gateway.term(), gateway.beat(now, *willing).number);
            }
            Some(Defect::ContinueEndedLease) if gateway.held(now).is_none() => {
                if let (Instruction::Keep, Some(held)) = (&answer.instruction, last_held) {
                    answer.instruction = Instruction::Apply(held.active.clone());
                }
            }
            _ => {}
        }
    }

    fn restart(state: &mut State, gateway: usize) {
        let process = &mut state.gateways[gateway];
        let epoch = process.epoch + 1;
        *process = Process { behind: process.behind, ..Process::new(gateway, epoch) };
    }
}

impl Model for Fleet {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Bounds { gateways, places, beats, faults, changes, .. } = self.bounds;
        let mut leader = Leader::new(1, 0, self.times(), places);
        leader.no_others_run();
        let gateways = (0..gateways).map(|gateway| Process::new(gateway, 1)).collect();
        let left = Left { beats, faults, changes };
        let mut state = State { time: 0, leader, gateways, network: Vec::new(), left };
        // The first gateway is already a home.
        self.connect(&mut state, 0);
        self.beat(&mut state, 0);
        while let Some(message) = state.network.pop() {
            Self { defect: None, ..self.clone() }.deliver(&mut state, message);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (index, process) in state.gateways.iter().enumerate() {
            if process.gateway.term() != state.leader.term() {
                actions.push(Action::Connect(index));
            }
            if state.left.beats > 0 && state.network.len() < self.bounds.under_way && process.gateway.term() > 0 {
                actions.push(Action::Beat(index));
            }
            if state.left.changes > 0 {
                actions.push(Action::ChangeWillingness(index));
            }
            if self.bounds.releases
                && state.left.changes > 0
                && !process.willing
                && process.gateway.lease_ends().is_some()
            {
                actions.push(Action::Release(index));
            }
        }
        let distinct = |message: &usize| *message == 0 || state.network[*message - 1] != state.network[*message];
        let messages = || (0..state.network.len()).filter(distinct);
        actions.extend(messages().map(Action::Deliver));
        if state.time < self.bounds.time {
            actions.push(Action::PassTime);
        }
        if state.left.faults > 0 {
            let gateways = || 0..state.gateways.len();
            for kind in &self.bounds.kinds {
                match kind {
                    Fault::Lose => actions.extend(messages().map(Action::Lose)),
                    Fault::Duplicate => actions.extend(messages().map(Action::Duplicate)),
                    Fault::LeaderEnds => actions.push(Action::LeaderEnds),
                    Fault::GatewayRestarts => actions.extend(gateways().map(Action::GatewayRestarts)),
                    Fault::SlowClock => {
                        let exact = gateways().filter(|gateway| state.gateways[*gateway].behind == 0);
                        actions.extend(exact.filter(|_| state.time > 0).map(Action::SlowClock));
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        let state = &mut next;
        match action {
            Action::Connect(gateway) => self.connect(state, gateway),
            Action::Beat(gateway) => {
                state.left.beats -= 1;
                self.beat(state, gateway);
            }
            Action::Deliver(message) => {
                let message = state.network.remove(message);
                self.deliver(state, message);
            }
            Action::ChangeWillingness(gateway) => {
                state.left.changes -= 1;
                state.gateways[gateway].willing ^= true;
            }
            Action::Release(gateway) => {
                state.left.changes -= 1;
                state.gateways[gateway].gateway.release();
            }
            Action::PassTime => state.time += 1,
            fault => {
                state.left.faults -= 1;
                self.apply_fault(state, fault);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOME, |_: &Self, state: &State| {
                PRINCIPALS.iter().all(|principal| state.homes(principal).len() <= 1)
            }),
            Property::always(SETTLES, Self::settles),
            Property::sometimes(MOVED, |_: &Self, state: &State| {
                PRINCIPALS.iter().any(|principal| state.homes(principal) == [1])
            }),
            Property::sometimes(SHARED, |_: &Self, state: &State| {
                [0, 1].iter().all(|gateway| PRINCIPALS.iter().any(|principal| state.homes(principal) == [*gateway]))
            }),
            Property::sometimes(RECOVERED, |_: &Self, state: &State| {
                state.leader.term() > 1 && state.leader.current().is_some()
            }),
        ]
    }
}

impl Fleet {
    fn apply_fault(&self, state: &mut State, fault: Action) {
        match fault {
            Action::Lose(message) => {
                let (Message::Beat { from: gateway, .. } | Message::Answer { to: gateway, .. }) =
                    state.network.remove(message);
                if self.defect == Some(Defect::EndedWithTheStream) {
                    state.leader.ended(&gateway);
                }
            }
            Action::Duplicate(message) => {
                let message = state.network[message].clone();
                state.send(message);
            }
            Action::LeaderEnds => {
                state.leader = Leader::new(state.leader.term() + 1, state.time, self.times(), self.bounds.places);
                if self.defect == Some(Defect::NoRecovery) {
                    state.leader.no_others_run();
                }
            }
            Action::GatewayRestarts(gateway) => Self::restart(state, gateway),
            Action::SlowClock(gateway) => state.gateways[gateway].behind = TIMES.margin,
            Action::Connect(_)
            | Action::Beat(_)
            | Action::Deliver(_)
            | Action::ChangeWillingness(_)
            | Action::Release(_)
            | Action::PassTime => {}
        }
    }
}
