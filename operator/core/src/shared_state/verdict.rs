//! What a tenant's published policy contains of each object, and how far gateways enforce the policy. Status is derived
//! from both.

use std::collections::BTreeMap;

use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::GatewayStatus;

use crate::public_name::origin;

/// Kinds of objects that are compiled into a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `MCPTenant`
    Tenant,
    /// `MCPServer`
    Server,
    /// `MCPScope`
    Scope,
    /// `MCPPrincipal`
    Principal,
    /// `MCPBudget`
    Budget,
}

/// Result of compiling one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the object was compiled as it is written.
    pub ok: bool,
    /// Reason for the condition.
    pub reason: ConditionReason,
    /// Message for the condition: what is wrong, and what to do.
    pub message: String,
    /// `metadata.generation` of the object that was compiled.
    pub object_generation: i64,
}

/// What the published policy contains of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    pub verdict: Verdict,
    /// First published generation of the policy with this verdict. A gateway that enforces this generation or a later one
    /// enforces the object. 0: all gateways already did when this replica began to lead.
    pub since: u64,
    /// Whether the object is a server and the policy has an address of one of its pods.
    pub has_address: bool,
}

/// How far a tenant's policy is enforced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantState {
    /// Newest published generation; 0 before the first.
    pub generation: u64,
    /// SHA-256 of the newest published policy, in hexadecimal.
    pub digest: Option<String>,
    /// Connected gateways, with the generation that each acknowledged with the right digest.
    pub gateways: Vec<GatewayStatus>,
    /// Why the newest policy could not be published, or why a gateway refused it.
    pub error: Option<(ConditionReason, String)>,
    /// Highest generation that all connected gateways ever enforced together. It stays when gateways disconnect: they
    /// never return to an older generation, and a new one is not ready before it enforces the newest.
    pub enforced_by_all: u64,
    /// Further origins that the newest published policy accepts as `aud`, each with the first generation that has done so
    /// without interruption, as far as this replica knows.
    pub audiences: BTreeMap<String, u64>,
    /// What connected gateways have said about public names, by pod.
    pub names: BTreeMap<String, GatewayNames>,
}

/// What a gateway has said about public names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayNames {
    /// Epoch of its process.
    epoch: String,
    /// Whether it understands a policy with such names.
    is_capable: bool,
    /// The names that it serves, with the end of each certificate, Unix seconds. One that has reported none serves none.
    served: BTreeMap<String, i64>,
}

/// How far the gateways are with a public name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    /// No gateway is connected.
    NoGateway,
    /// A gateway has not acknowledged a policy that accepts tokens for the name.
    NotAccepted,
    /// A gateway does not serve a certificate for the name.
    NotServed,
    /// Every gateway accepts and serves the name.
    Served,
}

/// Maximum number of gateways in a tenant's status.
const MAX_GATEWAYS_IN_STATUS: usize = 64;

impl TenantState {
    /// Counts the gateways that enforce the newest generation.
    fn current(&self) -> usize {
        self.enforced().filter(|enforced| *enforced >= self.generation).count()
    }

    /// Returns the generations that the connected gateways enforce, without gateways that enforce none yet.
    fn enforced(&self) -> impl Iterator<Item = u64> {
        let generations = self.gateways.iter().filter_map(|gateway| u64::try_from(gateway.policy_generation).ok());
        generations.filter(|generation| *generation > 0)
    }

    /// Returns whether a connected gateway enforces a policy.
    pub fn has_gateway(&self) -> bool {
        self.enforced().next().is_some()
    }

    /// Returns the highest generation that a gateway enforces.
    pub fn enforced_by_any(&self) -> u64 {
        let highest = self.enforced().max().unwrap_or_default().min(self.generation);
        highest.max(self.enforced_by_all)
    }

    /// Raises the generation that all gateways enforce.
    pub(super) fn raise_enforced_by_all(&mut self) {
        let lowest = self.enforced().min().unwrap_or_default().min(self.generation);
        self.enforced_by_all = self.enforced_by_all.max(lowest);
    }

    /// Records which generation a connected gateway enforces; 0 if it enforces none, or an unknown one.
    pub fn set_enforced(&mut self, pod: &str, generation: u64) {
        let policy_generation = i64::try_from(generation).unwrap_or(i64::MAX);
        if let Some(gateway) = self.gateways.iter_mut().find(|gateway| gateway.pod == *pod) {
            gateway.policy_generation = policy_generation;
        } else if self.gateways.len() < MAX_GATEWAYS_IN_STATUS {
            self.gateways.push(GatewayStatus { pod: pod.to_owned(), policy_generation });
            self.gateways.sort_by(|a, b| a.pod.cmp(&b.pod));
        }
        let refused = self.error.as_ref().is_some_and(|(reason, _)| *reason == ConditionReason::PolicyRefused);
        if refused && self.current() == self.gateways.len() {
            self.error = None;
        }
    }

    /// Records which further origins a published policy accepts.
    pub fn set_audiences(&mut self, generation: u64, audiences: &[String]) {
        let since = |origin: &String| self.audiences.get(origin).copied().unwrap_or(generation);
        self.audiences = audiences.iter().map(|origin| (origin.clone(), since(origin))).collect();
        for gateway in self.names.values_mut() {
            // A gateway is silent about a name that it may not serve any more.
            gateway.served.retain(|hostname, _| self.audiences.contains_key(&origin(hostname)));
        }
    }

    /// Records that a gateway has connected, and whether it understands a policy with public names. What the same process
    /// has reported before still holds.
    pub fn connect_gateway(&mut self, pod: &str, epoch: &str, is_capable: bool) {
        let before = self.names.remove(pod).filter(|before| before.epoch == *epoch);
        let served = before.map(|before| before.served).unwrap_or_default();
        self.names.insert(pod.to_owned(), GatewayNames { epoch: epoch.to_owned(), is_capable, served });
    }

    /// Records the public names that a gateway serves, with the end of each certificate, Unix seconds.
    pub fn set_served(&mut self, pod: &str, served: BTreeMap<String, i64>) {
        if let Some(gateway) = self.names.get_mut(pod) {
            gateway.served = served;
        }
    }

    /// Whether a policy may accept another public name. A gateway that does not understand it would refuse the whole policy,
    /// and then all calls. What a policy accepts already stays while no gateway is connected.
    pub fn may_accept(&self, hostname: &str) -> bool {
        let is_accepted = || self.audiences.contains_key(&origin(hostname));
        self.names.values().all(|gateway| gateway.is_capable) && (!self.names.is_empty() || is_accepted())
    }

    /// Returns how far the connected gateways are with a public name. `now` is in Unix seconds.
    pub fn name_state(&self, hostname: &str, now: i64) -> NameState {
        if self.gateways.is_empty() {
            return NameState::NoGateway;
        }
        let since = self.audiences.get(&origin(hostname));
        let accepts = |gateway: &GatewayStatus| {
            since.is_some_and(|since| u64::try_from(gateway.policy_generation).is_ok_and(|enforced| enforced >= *since))
        };
        let serves = |gateway: &GatewayStatus| {
            let end = self.names.get(&gateway.pod).and_then(|names| names.served.get(hostname));
            end.is_some_and(|end| *end > now)
        };
        if !self.gateways.iter().all(accepts) {
            NameState::NotAccepted
        } else if !self.gateways.iter().all(serves) {
            NameState::NotServed
        } else {
            NameState::Served
        }
    }

    /// Removes a gateway that has disconnected.
    pub fn remove_gateway(&mut self, pod: &str) {
        self.names.remove(pod);
        self.gateways.retain(|connected| connected.pod != pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enforced(state: &mut TenantState, generations: &[(&str, u64)]) -> (u64, u64) {
        for (pod, generation) in generations {
            state.set_enforced(pod, *generation);
        }
        state.raise_enforced_by_all();
        (state.enforced_by_all, state.enforced_by_any())
    }

    #[test]
    fn what_all_gateways_enforced_stays_enforced() {
        let mut state = TenantState { generation: 5, ..TenantState::default() };
        assert_eq!(enforced(&mut state, &[("a", 3), ("b", 5)]), (3, 5));
        assert_eq!(enforced(&mut state, &[("c", 0)]), (3, 5), "a new gateway is not ready yet");
        state.remove_gateway("b");
        assert_eq!(enforced(&mut state, &[]), (3, 3));
        assert_eq!(enforced(&mut state, &[("a", 0)]), (3, 3), "a gateway that reconnects enforces what it did before");
        assert_eq!(enforced(&mut state, &[("a", 5)]), (5, 5));
    }

    #[test]
    fn a_generation_that_was_never_published_is_not_enforced() {
        let mut state = TenantState { generation: 5, ..TenantState::default() };
        assert_eq!(enforced(&mut state, &[("a", u64::MAX)]), (5, 5));
    }

    #[test]
    fn a_name_is_served_once_every_gateway_accepts_and_serves_it() {
        let (name, origin) = ("mcp.example.com", "https://mcp.example.com".to_owned());
        let mut state = TenantState { generation: 5, ..TenantState::default() };
        let at = |state: &TenantState| state.name_state(name, 100);
        let serve = |state: &mut TenantState, pod: &str, end| {
            state.connect_gateway(pod, "1", true);
            state.set_served(pod, BTreeMap::from([(name.to_owned(), end)]));
        };
        assert_eq!(at(&state), NameState::NoGateway);
        state.set_enforced("a", 5);
        assert_eq!(at(&state), NameState::NotAccepted, "no policy has the name");
        state.set_audiences(6, std::slice::from_ref(&origin));
        serve(&mut state, "a", 200);
        assert_eq!(at(&state), NameState::NotAccepted, "the gateway has not acknowledged it");
        state.set_enforced("a", 6);
        assert_eq!(at(&state), NameState::Served);
        // Later policies change nothing.
        state.set_audiences(7, std::slice::from_ref(&origin));
        assert_eq!(at(&state), NameState::Served);
        state.set_enforced("b", 7);
        assert_eq!(at(&state), NameState::NotServed, "an earlier gateway reports nothing");
        serve(&mut state, "b", 100);
        assert_eq!(at(&state), NameState::NotServed, "the certificate has ended");
        state.remove_gateway("b");
        assert_eq!((at(&state), state.names.len()), (NameState::Served, 1));
        state.connect_gateway("a", "1", true);
        assert_eq!(at(&state), NameState::Served, "the same process connects again");
        state.connect_gateway("a", "2", true);
        assert_eq!(at(&state), NameState::NotServed, "another process has to say it itself");
        serve(&mut state, "a", 200);
        state.set_audiences(8, &[]);
        state.set_audiences(9, &[origin]);
        assert_eq!(at(&state), NameState::NotAccepted, "the name was away in between");
        state.set_enforced("a", 9);
        assert_eq!(at(&state), NameState::NotServed, "the gateway has to report it again");
    }

    #[test]
    fn a_policy_gets_a_name_only_if_every_gateway_understands_it() {
        let (name, origin) = ("mcp.example.com", "https://mcp.example.com".to_owned());
        let mut state = TenantState::default();
        assert!(!state.may_accept(name), "no gateway is connected");
        state.connect_gateway("a", "1", true);
        assert!(state.may_accept(name));
        state.connect_gateway("b", "1", false);
        assert!(!state.may_accept(name), "one has an earlier version");
        state.remove_gateway("b");
        state.set_audiences(3, &[origin]);
        state.remove_gateway("a");
        assert!(state.may_accept(name), "a policy has it");
    }
}
