//! Decides which tenants get the new image next. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use super::ShimOptions;

/// How long the pods of a tenant may take to be available with the new image. After that, the rollout stops.
pub(crate) const DEADLINE: Duration = Duration::from_mins(10);

/// How many tenants may be updated at a time: a number, or a percentage of all tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxUnavailable {
    /// A number of tenants.
    Tenants(usize),
    /// A percentage of all tenants, rounded up.
    Percent(usize),
}

/// A text is neither a positive number nor a percentage from 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of tenants from 1, such as 5, or a percentage from 1% to 100%")]
pub struct InvalidMaxUnavailable;

impl FromStr for MaxUnavailable {
    type Err = InvalidMaxUnavailable;

    fn from_str(text: &str) -> Result<Self, InvalidMaxUnavailable> {
        let (number, percent) = text.strip_suffix('%').map_or((text, false), |number| (number, true));
        match (number.parse(), percent) {
            (Ok(number @ 1..=100), true) => Ok(Self::Percent(number)),
            (Ok(number @ 1..), false) => Ok(Self::Tenants(number)),
            _ => Err(InvalidMaxUnavailable),
        }
    }
}

impl MaxUnavailable {
    fn of(self, tenants: usize) -> usize {
        match self {
            Self::Tenants(number) => number,
            Self::Percent(percent) => tenants.saturating_mul(percent).div_ceil(100).max(1),
        }
    }
}

/// What is known of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct TenantPods {
    /// Name of the tenant. Tenants are updated in the order of their names.
    pub name: String,
    /// Image that the tenant's pods have to run.
    pub image: String,
    /// Whether the gateway's pods have all that they have in this version: the certificate of a public name, and the port for other
    /// gateways. Those of earlier versions lack it, until they get another image: a change of the template alone would restart
    /// the gateways of all tenants at once.
    pub has_newest_form: bool,
    /// The options of the shim in the image.
    pub options: ShimOptions,
    /// Whether there may be several gateways: those that run can forward requests to each other. Kubernetes scales the pods that there
    /// are before it replaces them.
    pub may_scale: bool,
    /// Whether the gateway is available, with all of its pods as they have to be.
    pub gateway: bool,
    /// The same of each server that was reconciled, by UID.
    pub servers: BTreeMap<String, bool>,
    /// The update of this tenant, if it is not finished.
    pub update: Option<Update>,
}

/// An update that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    pub since: Instant,
    /// Whether the gateway was available before, so that it has to become so again.
    pub gateway: bool,
    /// UIDs of the servers that were available before.
    pub servers: BTreeSet<String>,
}

impl TenantPods {
    /// Begins to update the tenant. What was not available before is not waited for: a tenant can break its own servers.
    pub(crate) fn begin(&mut self, image: &str, now: Instant) {
        image.clone_into(&mut self.image);
        self.has_newest_form = true;
        self.options = ShimOptions::NEWEST;
        let servers = self.servers.iter().filter(|(_, available)| **available).map(|(uid, _)| uid.clone()).collect();
        self.update = Some(Update { since: now, gateway: self.gateway, servers });
        // Until they are reconciled with the new image.
        self.gateway = false;
        self.servers.values_mut().for_each(|available| *available = false);
    }

    /// Ends the update if all that was available before is available again, or does not exist any more.
    pub(crate) fn finish(&mut self, exists: impl Fn(&str) -> bool) {
        let is_back = |update: &Update| {
            (self.gateway || !update.gateway)
                && update.servers.iter().all(|uid| self.servers.get(uid) == Some(&true) || !exists(uid))
        };
        if self.update.as_ref().is_some_and(is_back) {
            self.update = None;
            self.may_scale = self.has_newest_form;
        }
    }
}

/// What comes next in a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    /// UIDs of the tenants to update now.
    pub begin: Vec<String>,
    /// Names of the tenants that stop the rollout: they are not available in time.
    pub failing: BTreeSet<String>,
    pub pending: usize,
    pub updating: usize,
    pub updated: usize,
}

/// Decides which tenants to update next.
pub(crate) fn next(
    tenants: &BTreeMap<String, TenantPods>,
    target: &str,
    max_unavailable: MaxUnavailable,
    paused: bool,
    now: Instant,
) -> Next {
    let mut pending: Vec<(&String, &String)> =
        tenants.iter().filter(|(_, pods)| pods.image != target).map(|(uid, pods)| (&pods.name, uid)).collect();
    pending.sort_unstable();
    let under_way = || tenants.values().filter_map(|pods| Some((pods, pods.update.as_ref()?)));
    let failing: BTreeSet<String> = under_way()
        .filter(|(_, update)| now.duration_since(update.since) >= DEADLINE)
        .map(|(pods, _)| pods.name.clone())
        .collect();
    let updating = under_way().count();
    let room =
        if paused || !failing.is_empty() { 0 } else { max_unavailable.of(tenants.len()).saturating_sub(updating) };
    let begin: Vec<String> = pending.iter().take(room).map(|(_, uid)| (*uid).clone()).collect();
    let updated = tenants.len() - pending.len() - updating;
    Next { pending: pending.len() - begin.len(), updating: updating + begin.len(), updated, begin, failing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(count: usize) -> BTreeMap<String, TenantPods> {
        let pods = |number| TenantPods {
            name: format!("tenant-{number}"),
            image: "old".into(),
            has_newest_form: false,
            options: ShimOptions::FIRST,
            may_scale: false,
            gateway: true,
            servers: [("good".to_owned(), true), ("broken".to_owned(), false)].into(),
            update: None,
        };
        // The order of UIDs is not that of names.
        (0..count).map(|number| (format!("u-{}", 9 - number), pods(number))).collect()
    }

    fn step(tenants: &mut BTreeMap<String, TenantPods>, max: MaxUnavailable, now: Instant) -> Next {
        let next = next(tenants, "new", max, false, now);
        for uid in &next.begin {
            tenants.get_mut(uid).unwrap().begin("new", now);
        }
        next
    }

    #[test]
    fn only_an_updated_gateway_has_what_earlier_versions_had_not() {
        let (mut tenants, now) = (tenants(2), Instant::now());
        step(&mut tenants, MaxUnavailable::Tenants(1), now);
        let has_newest_form = |uid: &str| tenants[uid].has_newest_form;
        assert_eq!(["u-9", "u-8"].map(has_newest_form), [true, false]);
    }

    #[test]
    fn there_are_several_gateways_once_all_that_run_are_updated() {
        let (mut tenants, now) = (tenants(1), Instant::now());
        step(&mut tenants, MaxUnavailable::Tenants(1), now);
        assert!(!tenants["u-9"].may_scale);
        set(&mut tenants, "u-9", true, true);
        assert!(tenants["u-9"].update.is_none() && tenants["u-9"].may_scale);
    }

    fn set(tenants: &mut BTreeMap<String, TenantPods>, uid: &str, gateway: bool, server: bool) {
        let pods = tenants.get_mut(uid).unwrap();
        pods.gateway = gateway;
        pods.servers.insert("good".into(), server);
        pods.finish(|_| true);
    }

    #[test]
    fn one_tenant_after_the_other_is_updated() {
        let (mut tenants, now) = (tenants(3), Instant::now());
        let max = MaxUnavailable::Tenants(1);
        assert_eq!(step(&mut tenants, max, now).begin, ["u-9"]);
        assert_eq!(step(&mut tenants, max, now).begin, Vec::<String>::new());
        set(&mut tenants, "u-9", true, false);
        assert_eq!(step(&mut tenants, max, now).begin, Vec::<String>::new(), "its server is not back");
        set(&mut tenants, "u-9", true, true);
        let next = step(&mut tenants, max, now);
        assert_eq!((next.begin, next.updated, next.updating, next.pending), (vec!["u-8".to_owned()], 1, 1, 1));
    }

    #[test]
    fn a_tenant_that_does_not_come_back_stops_the_rollout() {
        let (mut tenants, now) = (tenants(5), Instant::now());
        let max = MaxUnavailable::Tenants(2);
        step(&mut tenants, max, now);
        set(&mut tenants, "u-9", true, true);
        let late = now + DEADLINE;
        let next = step(&mut tenants, max, late);
        assert_eq!((next.begin, next.failing), (vec![], ["tenant-1".to_owned()].into()));
        set(&mut tenants, "u-8", true, true);
        assert_eq!(step(&mut tenants, max, late).begin, ["u-7", "u-6"]);
    }

    #[test]
    fn a_paused_rollout_begins_nothing_and_a_missing_server_is_not_waited_for() {
        let (mut tenants, now) = (tenants(2), Instant::now());
        assert_eq!(next(&tenants, "new", MaxUnavailable::Tenants(2), true, now).begin, Vec::<String>::new());
        assert_eq!(next(&tenants, "new", MaxUnavailable::Tenants(2), true, now).pending, 2);
        step(&mut tenants, MaxUnavailable::Tenants(1), now);
        let pods = tenants.get_mut("u-9").unwrap();
        pods.gateway = true;
        pods.finish(|uid| uid != "good");
        assert_eq!(pods.update, None);
    }

    #[test]
    fn percentages_are_rounded_up() {
        let max = |text: &str| text.parse::<MaxUnavailable>().unwrap();
        assert_eq!((max("10%").of(5), max("10%").of(11), max("100%").of(7), max("3").of(7)), (1, 2, 7, 3));
        for text in ["0", "0%", "101%", "", "%", "-1", "many"] {
            assert!(text.parse::<MaxUnavailable>().is_err(), "{text}");
        }
    }
}
