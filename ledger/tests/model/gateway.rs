//! A gateway of the model: the real lease pool, and the messages that its driver sends.

use mcp_fleet_policy::budget::{Charge, LeasePool, PricedCall, Reservation, ReserveOutcome};
use mcp_fleet_policy::tick::Tick;
use mcp_fleet_policy::units::Micros;

use crate::fleet::Fleet;
use crate::state::{Body, Gateway, Key, Process, State};

const CALL: PricedCall<'_> = PricedCall { principal: "acme/a", server: "s", tool: "t", price: Micros::ZERO };

impl Fleet {
    pub(crate) fn new_gateway(&self, time: usize, epoch: u64) -> Gateway {
        let mut pool = LeasePool::new();
        pool.apply(self.tick(time), &self.policy);
        Gateway { epoch, pool, held: Vec::new(), ticked: time, used: false }
    }

    pub(crate) fn tick(&self, time: usize) -> Tick {
        Tick::from_nanos(u64::try_from(self.elapsed_ms(time)).unwrap() * 1_000_000)
    }

    fn wall(&self, time: usize) -> i64 {
        self.now_ms(time) / 1000
    }

    /// Makes a call that every budget covers. Returns whether anything changed.
    pub(crate) fn call(&self, state: &mut State, index: usize) -> bool {
        let (tick, wall) = (self.tick(state.time), self.wall(state.time));
        let gateway = &mut state.gateways[index];
        let outcome = gateway.update(|gateway| {
            gateway.used = true;
            gateway.pool.reserve(tick, wall, &CALL, self.budgets.iter())
        });
        match outcome {
            ReserveOutcome::Denied(_) => return false,
            ReserveOutcome::NeedLease => {}
            ReserveOutcome::Reserved(reservation) => {
                for key in self.books_of(&gateway.pool, &reservation) {
                    *state.seen.begun.entry(key).or_default() += 1;
                }
                gateway.update(|gateway| gateway.held.push(reservation));
            }
        }
        state.left.attempts -= 1;
        self.flush(state, index);
        true
    }

    /// Ends the oldest call in flight.
    pub(crate) fn finish(&self, state: &mut State, index: usize, charge: Charge) {
        let tick = self.tick(state.time);
        let gateway = &mut state.gateways[index];
        let reservation = gateway.update(|gateway| gateway.held.remove(0));
        if charge == Charge::Nothing {
            for key in self.books_of(&gateway.pool, &reservation) {
                *state.seen.unspent.entry(key).or_default() += 1;
            }
        }
        gateway.update(|gateway| gateway.pool.settle(tick, reservation, charge));
        self.flush(state, index);
    }

    /// Returns the books that a reservation is charged to. A lease that has ended counts its reservations as spent.
    fn books_of(&self, pool: &LeasePool, reservation: &Reservation) -> Vec<Key> {
        let key = |(lease, budget_uid): (String, String)| {
            let (start, _) = lease.split_once('.').unwrap();
            (self.number_of(&budget_uid), start.parse().unwrap())
        };
        pool.leases_of(reservation).into_iter().map(key).collect()
    }

    /// Handles a message to a gateway.
    pub(crate) fn deliver(&self, state: &mut State, body: &Body) {
        let (tick, wall) = (self.tick(state.time), self.wall(state.time));
        let index = body.gateway();
        state.gateways[index].update(|gateway| match body {
            // The stream of a process that has ended is closed.
            Body::Answer { to, .. } | Body::Acknowledgement { to, .. } if to.1 != gateway.epoch => {}
            Body::Answer { answer, .. } => gateway.pool.answer(tick, wall, answer.clone()),
            Body::Acknowledgement { lease, sequence, .. } => gateway.pool.acknowledge_report(lease, *sequence),
            Body::Recall { lease, .. } => gateway.pool.return_lease(tick, lease),
            Body::Hello { .. } | Body::Request { .. } | Body::Report { .. } => {}
        });
        self.flush(state, index);
    }

    /// Lets the pool see the time.
    pub(crate) fn tick_gateway(&self, state: &mut State, index: usize) {
        let time = state.time;
        state.gateways[index].update(|gateway| {
            gateway.pool.expire_leases(self.tick(time));
            gateway.ticked = time;
        });
        self.flush(state, index);
    }

    /// Connects a gateway to the ledger: what is not answered is sent again.
    pub(crate) fn reconnect(&self, state: &mut State, index: usize) {
        let gateway = &mut state.gateways[index];
        gateway.update(|gateway| gateway.pool.resend_unanswered());
        let from = Process(index, gateway.epoch);
        if gateway.epoch > 0 {
            state.send(Body::Hello { from });
        }
        self.flush(state, index);
    }

    /// Sends what the pool has to send, reports first.
    pub(crate) fn flush(&self, state: &mut State, index: usize) {
        let tick = self.tick(state.time);
        let gateway = &mut state.gateways[index];
        let from = Process(index, gateway.epoch);
        let take = |gateway: &mut Gateway| (gateway.pool.take_reports(tick), gateway.pool.take_lease_requests(tick));
        let (reports, requests) = gateway.update(take);
        for report in reports {
            state.send(Body::Report { from, report });
        }
        for request in requests {
            state.send(Body::Request { from, request });
        }
    }
}
