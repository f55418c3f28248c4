//! What can go wrong.

use mcp_fleet_ledger::commit::Step;
use mcp_fleet_policy::budget::{Charge, SpendReport};
use mcp_fleet_policy::units::Micros;

use crate::fleet::{Action, Fleet};
use crate::operator::Operator;
use crate::shared::Shared;
use crate::state::{Body, Process, State, pod};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store does not answer; a write may have happened.
    Store,
    /// An operator ends, and another one starts without any copy.
    OperatorCrash,
    /// The process of a gateway ends, and another one starts in the same pod.
    GatewayCrash,
    /// A gateway is cut off and connects again. Messages under way are lost, or arrive late.
    Partition,
    /// A message arrives twice.
    Duplicate,
    /// The clock of an operator jumps ahead, into the next period.
    ClockStep,
    /// A gateway reports on a lease of the process before it.
    ForeignReport,
    /// A call never reaches its server.
    Unsent,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Store,
        Self::OperatorCrash,
        Self::GatewayCrash,
        Self::Partition,
        Self::Duplicate,
        Self::ClockStep,
        Self::ForeignReport,
        Self::Unsent,
    ];
}

impl Fleet {
    pub(crate) fn faults(&self, state: &State, faults: &mut Vec<(Fault, Action)>) {
        for (operator, its) in state.operators.iter().enumerate() {
            if its.busy.is_some() {
                faults.push((Fault::Store, Action::LoseAnswerOfStore { operator, applied: false }));
                faults.push((Fault::Store, Action::LoseAnswerOfStore { operator, applied: true }));
            }
            if its.busy.is_some() || !its.copies.is_empty() {
                faults.push((Fault::OperatorCrash, Action::CrashOperator { operator, applied: false }));
            }
            if its.busy.as_ref().is_some_and(|busy| busy.commit.step() == Step::Write) {
                faults.push((Fault::OperatorCrash, Action::CrashOperator { operator, applied: true }));
            }
            if its.skew == 0 {
                faults.push((Fault::ClockStep, Action::StepClock { operator }));
            }
        }
        for (gateway, its) in state.gateways.iter().enumerate() {
            if !its.held.is_empty() {
                faults.push((Fault::Unsent, Action::Finish { gateway, charge: Charge::Nothing }));
            }
            if its.epoch == 0 && its.used {
                faults.push((Fault::GatewayCrash, Action::CrashGateway { gateway }));
            }
            if its.epoch > 0 {
                faults.push((Fault::ForeignReport, Action::ReportForPredecessor { gateway }));
            }
            if state.network.iter().any(|message| message.gateway() == gateway) {
                faults.push((Fault::Partition, Action::BreakStream { gateway, lose: false }));
                faults.push((Fault::Partition, Action::BreakStream { gateway, lose: true }));
            }
        }
        let messages = 0..state.network.len();
        faults.extend(messages.map(|message| (Fault::Duplicate, Action::Duplicate { message })));
    }

    pub(crate) fn apply_fault(&self, state: &mut State, action: Action) {
        match action {
            Action::Finish { gateway, charge } => self.finish(state, gateway, charge),
            Action::LoseAnswerOfStore { operator, applied } => {
                // A gateway that asks again gets the lease that may have been charged; this one may not ask again.
                state.seen.lossy = true;
                self.fail_access(state, operator, applied);
            }
            Action::CrashOperator { operator, applied } => {
                if applied {
                    self.apply_write(state, operator);
                }
                let Operator { skew, limits, .. } = *state.operators[operator];
                state.operators[operator] = Shared::new(Operator { skew, limits, ..Operator::default() });
                state.seen.breaks += 1;
                for gateway in 0..self.bounds.gateways {
                    self.reconnect(state, gateway);
                }
            }
            Action::CrashGateway { gateway } => {
                let epoch = state.gateways[gateway].epoch + 1;
                state.gateways[gateway] = Shared::new(self.new_gateway(state.time, epoch));
                state.seen.lossy = true;
                self.reconnect(state, gateway);
            }
            Action::BreakStream { gateway, lose } => {
                state.seen.breaks += 1;
                if lose {
                    state.network.retain(|message| message.gateway() != gateway);
                }
                self.reconnect(state, gateway);
            }
            Action::Duplicate { message } => {
                let body = state.network[message].clone();
                state.network.insert(message, body);
                state.seen.breaks += 1;
            }
            Action::StepClock { operator } => {
                state.operators[operator].update(|operator| operator.skew = 300_000);
                state.seen.lossy = true;
            }
            Action::ReportForPredecessor { gateway } => {
                let lease = state.store.iter().find_map(|(key, book)| {
                    let mut leases = book.leases.iter();
                    let old = |epoch: &str| epoch != state.gateways[gateway].epoch.to_string();
                    let pod = pod(gateway);
                    let lease = leases.find(|lease| lease.holder.pod_uid == pod && old(&lease.holder.epoch));
                    lease.map(|lease| (key.0, lease.id.clone()))
                });
                if let Some((budget, lease)) = lease {
                    let report = SpendReport {
                        lease,
                        budget_uid: budget.to_string(),
                        sequence: 9,
                        amount: Micros::ZERO,
                        calls: 0,
                        last: true,
                        items: Vec::new(),
                    };
                    state.send(Body::Report { from: Process(gateway, state.gateways[gateway].epoch), report });
                }
            }
            _ => unreachable!("{action:?} is no fault"),
        }
    }
}
