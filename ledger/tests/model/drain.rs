//! From any state: no more faults and no more calls, every message arrives, every call ends, and then all leases end.

use mcp_fleet_policy::budget::Charge;

use crate::fleet::{Fleet, LAST_TIME};
use crate::operator::Work;
use crate::shared::hash_of;
use crate::state::{Body, State};

/// Returns whether a state is one of those from which draining is tried.
pub(crate) fn is_chosen(state: &State, one_in: u64) -> bool {
    one_in <= 1 || hash_of(state).is_multiple_of(one_in)
}

impl Fleet {
    /// Drains the fleet. Returns the number of steps, or what is wrong in the end.
    pub(crate) fn drain(&self, mut state: State) -> Result<usize, String> {
        let mut steps = 0;
        let tick = self.tick(state.time);
        for gateway in 0..self.bounds.gateways {
            while !state.gateways[gateway].held.is_empty() {
                self.finish(&mut state, gateway, Charge::Full);
                steps += 1;
            }
            state.gateways[gateway].update(|gateway| gateway.pool.close(tick));
            self.reconnect(&mut state, gateway);
        }
        self.settle(&mut state, &mut steps)?;
        if let Some(gateway) = state.gateways.iter().find(|gateway| !gateway.pool.is_empty()) {
            return Err(format!("a gateway still holds leases: {:?}", gateway.pool));
        }
        let forfeited = |state: &State| state.store.values().map(|book| book.forfeited().calls).sum::<u64>();
        state.time = LAST_TIME;
        let keys: Vec<_> = state.store.keys().copied().collect();
        for key in keys {
            // The leader compares its copies with what is stored from time to time.
            state.operators[0].update(|operator| operator.copies.remove(&key));
            self.enqueue(&mut state, 0, key, Work::Expire);
            self.settle(&mut state, &mut steps)?;
        }
        for (key, book) in &state.store {
            let (audited, settled) = (state.seen.audited(key), book.settled().calls);
            if !book.leases.is_empty() {
                return Err(format!("leases never end: {:?}", book.leases));
            }
            if audited > settled + book.forfeited().calls {
                return Err(format!("{audited} calls of {key:?}, and {settled} settled: {book:?}"));
            }
            if !state.seen.lossy && state.seen.breaks < 2 && settled != audited {
                return Err(format!(
                    "{audited} calls, {settled} settled, though no gateway ended and no lease was overdue"
                ));
            }
        }
        if !state.seen.lossy && state.seen.breaks < 2 && forfeited(&state) > 0 {
            return Err(format!("{} calls are forfeited, though no gateway ended", forfeited(&state)));
        }
        Ok(steps)
    }

    /// Delivers every message and makes every access, until nothing is left to do.
    fn settle(&self, state: &mut State, steps: &mut usize) -> Result<(), String> {
        loop {
            if *steps > self.bounds.most_drain_steps {
                return Err(format!("more than {} steps", self.bounds.most_drain_steps));
            }
            *steps += 1;
            if let Some(operator) = state.operators.iter().position(|operator| operator.busy.is_some()) {
                self.access(state, operator);
            } else if let Some(message) = state.network.pop() {
                match &*message {
                    to_ledger @ (Body::Hello { .. } | Body::Request { .. } | Body::Report { .. }) => {
                        self.receive(state, 0, to_ledger);
                    }
                    to_gateway => self.deliver(state, to_gateway),
                }
            } else {
                return Ok(());
            }
        }
    }
}
