//! What has to happen once nothing fails any more: every principal gets a home.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::fleet::Fleet;
use crate::state::{PRINCIPALS, State};

/// No state takes longer to settle, in units of time.
const MOST_ROUNDS: u64 = 16;

impl Fleet {
    /// Returns whether every principal gets a home if nothing fails from now on. Tried from some of the states only.
    pub(crate) fn settles(&self, state: &State) -> bool {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        if self.bounds.settle_one_in.is_none_or(|one_in| !hasher.finish().is_multiple_of(one_in)) {
            return true;
        }
        let mut state = state.clone();
        while let Some(message) = state.network.pop() {
            self.deliver(&mut state, message);
        }
        let willing = state.gateways.iter().filter(|gateway| gateway.willing).count();
        for _ in 0..MOST_ROUNDS {
            for gateway in 0..state.gateways.len() {
                self.connect(&mut state, gateway);
                self.beat(&mut state, gateway);
                while let Some(message) = state.network.pop() {
                    self.deliver(&mut state, message);
                }
            }
            let members = state.leader.current().map_or(0, |view| view.members().len());
            let has_home = |principal: &&str| {
                let homes = state.homes(principal);
                homes.len() == 1 && state.gateways[homes[0]].willing
            };
            let expected = willing.min(self.bounds.places);
            if willing == 0 || members == expected && PRINCIPALS.iter().all(has_home) {
                return true;
            }
            state.time += 1;
        }
        false
    }
}
