//! Limits the size of a policy. What does not fit is refused object by object, so that everything else is published: above
//! all what restricts, such as revocations.
//!
//! What was in force before always fits: restrictions make it smaller, apart from small fields for which the limits leave
//! room. Objects that need more are admitted in the order of their creation while there is room. Changes of objects that
//! are in force may use more room than new objects, so that new ones do not hold back restrictions that take room. Budgets
//! are never refused, because they restrict; their number is limited.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use kube::ResourceExt;
use mcp_fleet_control::convert::{MAX_ALL_HELD, grant_size, list_size, principal_size, server_size};
use mcp_fleet_control::snapshot::MAX_COMPRESSED;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_policy::model::{Argument, Grant, Principal, Server, TenantPolicy, Uid};

use super::{Before, Compiled, Previous, Rejection, TenantInputs, uid};
use crate::shared_state::verdict::Kind;

/// Objects that are refused, with the bytes that each needs.
pub(super) type Refused = BTreeMap<(Kind, Uid), usize>;

const MIB: usize = 1024 * 1024;

/// How large a policy may be, in bytes of the shared form.
///
/// A gateway needs up to 25 times as much memory while it changes from one policy to the next, and has to do with the
/// default limit of its container. It decodes larger policies ([`MAX_POLICY`](mcp_fleet_control::codec::MAX_POLICY)),
/// because budgets and restrictions come on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// With new objects.
    new: usize,
    /// With larger versions of objects that are in force.
    changed: usize,
}

impl Limit {
    /// The limit of policies that can be compressed well enough for a snapshot.
    pub const DEFAULT: Self = Self { new: 4 * MIB, changed: 5 * MIB };
    /// The limit of policies that cannot be compressed at all.
    pub const INCOMPRESSIBLE: Self = Self { new: MAX_COMPRESSED - MIB / 2, changed: MAX_COMPRESSED - MIB / 4 };

    /// Returns the limit in bytes.
    pub const fn bytes(self) -> usize {
        self.new
    }

    /// Returns a lower limit, after a policy of a size was larger than a snapshot when it was compressed.
    #[must_use]
    pub fn scaled(self, size: usize, compressed: usize) -> Self {
        // A tenth less than would fit if the rest can be compressed as well.
        let fits = (size / 1024).saturating_mul(MAX_COMPRESSED).saturating_mul(9) / compressed.max(1) * 1024 / 10;
        let new = fits.min(self.new).max(Self::INCOMPRESSIBLE.new);
        Self { new, changed: (new + MIB / 4).min(self.changed) }
    }
}

/// Returns the rejection of an object that needs this many bytes.
pub(super) fn rejection(size: usize) -> Rejection {
    let message = format!(
        "the tenant's policy is full: it may have {} MiB, or {:.1} MiB compressed, and this object needs {} KiB of that. \
         Until it fits, what was in force of it before stays in force, and nothing of a new object. Delete objects that \
         are no longer needed, let principals share scopes, or use fewer or shorter argument rules",
        Limit::DEFAULT.new / MIB,
        f64::from(u32::try_from(MAX_COMPRESSED / 1024).unwrap_or(u32::MAX)) / 1024.0,
        size.div_ceil(1024)
    );
    Rejection::new(ConditionReason::PolicyTooLarge, message)
}

/// Returns whether a policy is within the limit.
pub(super) fn fits(policy: &TenantPolicy, limit: Limit) -> bool {
    let held: usize = policy.principals.iter().map(|principal| principal.grants.len()).sum();
    held <= MAX_ALL_HELD && mcp_fleet_control::encoded_size(policy) <= limit.new
}

/// What one version of an object takes in a policy.
#[derive(Default)]
struct Need {
    /// Bytes, without lists of arguments.
    own: usize,
    /// Numbers of its lists of arguments.
    lists: Vec<usize>,
    /// Number of grants that it holds.
    held: usize,
}

/// An object in the policy, as it was and as it is written now.
struct Item {
    key: (Kind, Uid),
    before: Need,
    now: Need,
}

/// Sizes of the distinct lists of arguments, each with a number.
#[derive(Default)]
struct Lists<'a> {
    numbers: HashMap<&'a [Argument], usize>,
    sizes: Vec<usize>,
}

impl<'a> Lists<'a> {
    fn number(&mut self, list: &'a [Argument]) -> usize {
        let Self { numbers, sizes } = self;
        *numbers.entry(list).or_insert_with(|| {
            sizes.push(list_size(list));
            sizes.len() - 1
        })
    }

    /// Returns the bytes of these lists that `known` does not contain.
    fn size(&self, lists: &[usize], known: &HashSet<usize>) -> usize {
        let new: HashSet<usize> = lists.iter().copied().filter(|list| !known.contains(list)).collect();
        new.into_iter().filter_map(|list| self.sizes.get(list)).sum()
    }

    fn of_server(&mut self, server: &'a Server) -> Need {
        let lists = server.tools.iter().map(|tool| self.number(&tool.arguments)).collect();
        Need { own: server_size(server), lists, held: 0 }
    }

    fn of_grant(&mut self, grant: &'a Grant) -> Need {
        let lists = grant.tools.iter().filter_map(|tool| Some(self.number(tool.arguments.as_deref()?))).collect();
        Need { own: grant_size(grant), lists, held: 0 }
    }
}

fn of_principal(principal: &Principal) -> Need {
    Need { own: principal_size(principal), lists: Vec::new(), held: principal.grants.len() }
}

/// Returns the objects to refuse from a policy that is larger than the limit. The cost grows with the size of the policy and
/// the number of its objects only.
pub(super) fn refused(
    inputs: &TenantInputs,
    previous: Option<&Previous>,
    compiled: &Compiled,
    limit: Limit,
) -> Refused {
    let mut lists = Lists::default();
    let items = items(previous, compiled, &mut lists);
    let before: HashSet<usize> = items.iter().flat_map(|item| item.before.lists.iter().copied()).collect();
    let grows = |item: &Item| {
        let Item { before: old, now, .. } = item;
        now.own > old.own || now.held > old.held || now.lists.iter().any(|list| !before.contains(list))
    };
    let (mut growing, others): (Vec<Item>, Vec<Item>) = items.into_iter().partition(grows);

    // What is in force in any case.
    let kept = others.iter().map(|item| &item.now).chain(growing.iter().map(|item| &item.before));
    let mut known = HashSet::new();
    let mut size = mcp_fleet_control::encoded_size(&without_objects(&compiled.policy));
    let mut held = 0;
    for need in kept {
        size += need.own + lists.size(&need.lists, &known);
        held += need.held;
        known.extend(&need.lists);
    }

    let age = ages(inputs);
    growing.sort_by_cached_key(|item| (age.get(&item.key).cloned().unwrap_or_default(), item.key.clone()));
    let mut refused = Refused::new();
    for Item { key, before, now } in growing {
        let added = now.own.saturating_sub(before.own) + lists.size(&now.lists, &known);
        let added_held = now.held.saturating_sub(before.held);
        let most = if before.own == 0 { limit.new } else { limit.changed };
        if size + added > most || held + added_held > MAX_ALL_HELD {
            refused.insert(key, now.own + lists.size(&now.lists, &HashSet::new()));
            continue;
        }
        (size, held) = (size + added, held + added_held);
        known.extend(now.lists);
    }
    refused
}

/// Returns a policy without the objects that can be refused.
fn without_objects(policy: &TenantPolicy) -> TenantPolicy {
    TenantPolicy {
        servers: Vec::new(),
        principals: Vec::new(),
        tenant: policy.tenant.clone(),
        tenant_uid: policy.tenant_uid.clone(),
        audience: policy.audience.clone(),
        other_audiences: policy.other_audiences.clone(),
        issuer: policy.issuer.clone(),
        keys: policy.keys.clone(),
        session_key: policy.session_key.clone(),
        currency: policy.currency.clone(),
        budgets: policy.budgets.clone(),
        allowed_origins: policy.allowed_origins.clone(),
        ..*policy
    }
}

/// Returns the servers, scopes and principals of a policy, with what was in force of each before.
fn items<'a>(previous: Option<&'a Previous>, compiled: &'a Compiled, lists: &mut Lists<'a>) -> Vec<Item> {
    let before = previous.map(Before::new).unwrap_or_default();
    let mut items = Vec::new();
    for server in &compiled.policy.servers {
        let old = before.servers.get(server.uid.as_str()).map(|old| lists.of_server(old)).unwrap_or_default();
        items.push(Item { key: (Kind::Server, server.uid.clone()), before: old, now: lists.of_server(server) });
    }
    let mut seen = HashSet::new();
    for grant in compiled.policy.principals.iter().flat_map(|principal| &principal.grants) {
        if !seen.insert(grant.scope.as_str()) {
            continue;
        }
        let Some(scope_uid) = compiled.scopes.get(&grant.scope) else { continue };
        let same = previous.is_some_and(|previous| previous.scopes.get(&grant.scope) == Some(scope_uid));
        let old = before.grants.get(grant.scope.as_str()).filter(|_| same);
        let old = old.map(|old| lists.of_grant(old)).unwrap_or_default();
        items.push(Item { key: (Kind::Scope, scope_uid.clone()), before: old, now: lists.of_grant(grant) });
    }
    for principal in &compiled.policy.principals {
        let old = before.principals.get(principal.uid.as_str()).map(|old| of_principal(old)).unwrap_or_default();
        items.push(Item { key: (Kind::Principal, principal.uid.clone()), before: old, now: of_principal(principal) });
    }
    items
}

/// Creation time and name of an object. An object without them counts as old: it cannot be read, so it is not new.
type Age = (Option<Timestamp>, String);

fn ages(inputs: &TenantInputs) -> HashMap<(Kind, Uid), Age> {
    fn age(kind: Kind, object: &impl ResourceExt) -> ((Kind, Uid), Age) {
        let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
        ((kind, uid(object)), (created, object.name_any()))
    }
    let servers = inputs.servers.iter().map(|object| age(Kind::Server, &**object));
    let scopes = inputs.scopes.iter().map(|object| age(Kind::Scope, &**object));
    let principals = inputs.principals.iter().map(|object| age(Kind::Principal, &**object));
    servers.chain(scopes).chain(principals).collect()
}
