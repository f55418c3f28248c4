//! What a model checker needs to know of a lease pool.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use super::items::Items;
use super::{LeasePool, Reservation, Source};

impl LeasePool {
    /// Returns the leases that a reservation takes from, as pairs of id and UID of the budget.
    pub fn leases_of(&self, reservation: &Reservation) -> Vec<(String, String)> {
        let leases = reservation.parts.iter().filter_map(|part| match &part.source {
            Source::Lease(number) => self.leases.get(number),
            Source::Unleased(_) => None,
        });
        leases.map(|lease| (lease.id().to_owned(), lease.budget_uid().to_owned())).collect()
    }
}

impl Hash for LeasePool {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { accounts, leases, last_number, requested, closed } = self;
        accounts.iter().collect::<BTreeMap<_, _>>().hash(state);
        (leases, last_number, requested, closed).hash(state);
    }
}

impl Hash for Items {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { indices, usage } = self;
        for (principal, servers) in indices.iter().collect::<BTreeMap<_, _>>() {
            for (server, tools) in servers.iter().collect::<BTreeMap<_, _>>() {
                (principal, server, tools.iter().collect::<BTreeMap<_, _>>()).hash(state);
            }
        }
        usage.hash(state);
    }
}
