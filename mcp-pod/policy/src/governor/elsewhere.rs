//! Calls in flight at other gateways of the tenant, which were the homes of their principals before. They count here until
//! they end, so that no limit on calls in flight is exceeded when a home changes.

use std::sync::PoisonError;

use foldhash::HashMap;

use super::{Governor, Permit};

/// Calls of one principal that are in flight on one server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InFlight {
    /// UID of the principal.
    pub principal_uid: String,
    /// UID of the server.
    pub server_uid: String,
    /// Number of calls.
    pub calls: u32,
}

/// The places that calls at other gateways take here.
#[derive(Debug, Default)]
pub struct Elsewhere(HashMap<(String, String), Vec<Permit>>);

impl Elsewhere {
    /// Counts these calls, and no others. There may be several entries for the same principal and server. Those that are
    /// not in the policy have no limits, and are not counted.
    pub fn set(&mut self, governor: &Governor, calls: Vec<InFlight>) {
        let mut wanted: HashMap<(String, String), usize> = HashMap::default();
        for InFlight { principal_uid, server_uid, calls } in calls {
            let entry = wanted.entry((principal_uid, server_uid)).or_default();
            *entry = entry.saturating_add(usize::try_from(calls).unwrap_or(usize::MAX));
        }
        self.0.retain(|key, _| wanted.contains_key(key));
        for (key, calls) in wanted {
            let permits = self.0.remove(&key).unwrap_or_default();
            let occupied = occupy(governor, &key, calls, permits);
            self.0.insert(key, occupied);
        }
    }

    /// Returns the calls that are in flight here, of those that take places here.
    pub fn take_from(&self, mut in_flight: Vec<InFlight>) -> Vec<InFlight> {
        for InFlight { principal_uid, server_uid, calls } in &mut in_flight {
            let elsewhere = self.0.get(&(principal_uid.clone(), server_uid.clone())).map_or(0, Vec::len);
            *calls = calls.saturating_sub(u32::try_from(elsewhere).unwrap_or(u32::MAX));
        }
        in_flight.retain(|one| one.calls > 0);
        in_flight
    }
}

/// Takes or gives back places until there are `calls`.
fn occupy(
    governor: &Governor,
    (principal, server): &(String, String),
    calls: usize,
    mut permits: Vec<Permit>,
) -> Vec<Permit> {
    permits.truncate(calls);
    while permits.len() < calls
        && let Some(permit) = governor.occupy(principal, server)
    {
        permits.push(permit);
    }
    permits
}

impl Governor {
    /// Returns the calls in flight, by principal and server.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let principals = self.principals.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = Vec::new();
        for (principal_uid, principal) in &principals {
            let state = principal.lock();
            if state.in_flight == 0 {
                continue;
            }
            found.extend(servers.iter().filter_map(|(server_uid, slots)| {
                let calls = state.shares.on(slots);
                let (principal_uid, server_uid) = (principal_uid.clone(), server_uid.clone());
                (calls > 0).then_some(InFlight { principal_uid, server_uid, calls })
            }));
        }
        found
    }

    /// Takes the place of one call in flight, whether there is room for it or not. It takes nothing from the rates. None if
    /// principal or server is not in the policy.
    fn occupy(&self, principal: &str, server: &str) -> Option<Permit> {
        let principal = self.principal(principal)?;
        let server = self.servers.read().unwrap_or_else(PoisonError::into_inner).get(server).cloned()?;
        // Locked in the same order as for an admission.
        let mut principal_state = principal.lock();
        let mut tenant_state = self.tenant.lock();
        server.occupy();
        principal_state.in_flight = principal_state.in_flight.saturating_add(1);
        principal_state.shares.add(&server);
        tenant_state.in_flight = tenant_state.in_flight.saturating_add(1);
        drop((principal_state, tenant_state));
        Some(Permit { principal, tenant: self.tenant.clone(), server })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::model::TenantPolicy;
    use crate::reason::Reason;
    use crate::testing;
    use crate::tick::Tick;

    fn governor(change: impl FnOnce(&mut TenantPolicy)) -> Governor {
        let mut policy = testing::policy();
        change(&mut policy);
        let governor = Governor::new();
        governor.apply(Tick::ZERO, &policy);
        governor
    }

    fn calls(calls: u32) -> Vec<InFlight> {
        vec![InFlight { principal_uid: "p-coder".into(), server_uid: "s-files".into(), calls }]
    }

    fn admit(governor: &Governor) -> Result<Permit, Reason> {
        governor.admit(Tick::ZERO, "p-coder", "s-files").map_err(|denial| denial.reason)
    }

    #[test]
    fn calls_at_another_gateway_count_against_every_limit_until_they_end() {
        for (change, reason) in [
            (
                (|policy| policy.principals[0].limits.max_concurrent_calls = Some(3)) as fn(&mut TenantPolicy),
                Reason::ConcurrencyLimited,
            ),
            (|policy| policy.traffic.max_concurrent_calls = Some(3), Reason::TenantConcurrencyLimited),
            (|policy| policy.servers[0].limits.max_concurrent_calls = 3, Reason::ServerConcurrencyLimited),
        ] {
            let governor = governor(|policy| {
                policy.principals.truncate(1);
                policy.principals[0].limits.calls_per_minute = None;
                change(policy);
            });
            let mut elsewhere = Elsewhere::default();
            elsewhere.set(&governor, calls(2));
            let first = admit(&governor).unwrap();
            assert_eq!(admit(&governor).unwrap_err(), reason);
            // More than there is room for.
            elsewhere.set(&governor, calls(9));
            drop(first);
            assert_eq!(admit(&governor).unwrap_err(), reason);
            elsewhere.set(&governor, calls(1));
            let _admitted = [admit(&governor).unwrap(), admit(&governor).unwrap()];
            assert_eq!(admit(&governor).unwrap_err(), reason);
            elsewhere.set(&governor, Vec::new());
            assert!(admit(&governor).is_ok());
        }
    }

    #[test]
    fn they_take_nothing_from_the_rates() {
        let governor = governor(|policy| policy.principals[0].limits.calls_per_minute = Some(60));
        let mut elsewhere = Elsewhere::default();
        elsewhere.set(&governor, calls(2));
        elsewhere.set(&governor, Vec::new());
        assert!(admit(&governor).is_ok(), "the bucket starts with one token");
    }

    #[test]
    fn what_one_gateway_reports_another_counts() {
        let (one, other) = (governor(|_| {}), governor(|_| {}));
        assert_eq!(one.in_flight(), []);
        let admitted = admit(&one).unwrap();
        let mut elsewhere = Elsewhere::default();
        elsewhere.set(&other, one.in_flight());
        assert_eq!(other.in_flight(), calls(1));
        drop(admitted);
        elsewhere.set(&other, one.in_flight());
        assert_eq!(other.in_flight(), []);
        // Two gateways report calls of the same principal.
        elsewhere.set(&other, [calls(1), calls(2)].concat());
        assert_eq!(other.in_flight(), calls(3));
    }

    #[test]
    fn what_is_not_in_the_policy_is_not_counted() {
        let governor = governor(|_| {});
        let unknown = |principal: &str, server: &str| InFlight {
            principal_uid: principal.into(),
            server_uid: server.into(),
            calls: 4_000_000_000,
        };
        Elsewhere::default().set(&governor, vec![unknown("p-none", "s-files"), unknown("p-coder", "s-none")]);
        assert_eq!(governor.in_flight(), []);
    }

    #[test]
    fn what_is_in_flight_here_is_told_from_what_is_elsewhere() {
        let governor = governor(|_| {});
        let mut elsewhere = Elsewhere::default();
        let calls = |calls| InFlight { principal_uid: "p-coder".into(), server_uid: "s-files".into(), calls };
        elsewhere.set(&governor, vec![calls(2)]);
        assert_eq!(governor.in_flight(), [calls(2)]);
        assert_eq!(elsewhere.take_from(governor.in_flight()), []);
        let _permit = governor.admit(Tick::ZERO, "p-coder", "s-files").unwrap();
        assert_eq!(elsewhere.take_from(governor.in_flight()), [calls(1)]);
    }
}
