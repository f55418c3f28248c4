//! The named features of a policy that its reader has to know (`required_features`).
//!
//! The writer lists the features that the policy uses. A reader that does not know one of them rejects the whole policy
//! and names that feature in the error. A change that adds a field with a new restriction adds a row here.

use std::collections::HashSet;
use std::sync::Arc;

use mcp_fleet_policy::loops::{LoopSettings, Polls};
use mcp_fleet_policy::model::{Argument, Breaker, BudgetMode, Grant, Rule, TenantPolicy};

use crate::form::Form;

/// A named feature of policies.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Name on the wire; never changed once released.
    pub name: &'static str,
    /// Returns whether a policy in this form uses the feature.
    used_by: fn(&TenantPolicy, Form) -> bool,
}

/// Name of the feature of policies in the shared form.
pub(crate) const SHARED: &str = "shared";

/// Name of the feature of policies that accept tokens for several origins.
pub const OTHER_AUDIENCES: &str = "other-audiences";

/// The features that this version knows, in the order of their names on the wire.
pub const FEATURES: &[Feature] = &[
    // Tenants, servers, catalogues, principals, grants, traffic limits and staleness limits of the first version.
    Feature { name: "v1", used_by: |_, _| true },
    // Budgets, and leases on them.
    Feature { name: "budgets", used_by: |policy, _| !policy.budgets.is_empty() },
    // Argument lists in scopes, which apply in addition to those of the catalogue.
    Feature { name: "scope-arguments", used_by: |policy, _| uses_scope_arguments(policy) },
    // Path rules, and the resolution of paths by the shim.
    Feature { name: "path-rules", used_by: |policy, _| uses_rule(policy, |rule| matches!(rule, Rule::Path(_))) },
    // Rules for arrays and objects, which contain other rules.
    Feature {
        name: "nested-rules",
        used_by: |policy, _| uses_rule(policy, |rule| matches!(rule, Rule::Array(_) | Rule::Object(_))),
    },
    // Settings of breakers. Those of a server that does not have its own are not in the policy.
    Feature { name: "breaker", used_by: |policy, _| policy.servers.iter().any(|one| one.breaker != Breaker::DEFAULT) },
    // Endpoints without the built-in tools, which all others have.
    Feature { name: "without-built-in-tools", used_by: |policy, _| !policy.built_in_tools },
    // Web pages that may call the servers. A gateway without the feature refuses what browsers send for them.
    Feature { name: "allowed-origins", used_by: |policy, _| !policy.allowed_origins.is_empty() },
    // Public names of the endpoint. A gateway without the feature would refuse tokens for them, and serve none.
    Feature { name: OTHER_AUDIENCES, used_by: |policy, _| !policy.other_audiences.is_empty() },
    // Breakers that a person cleared.
    Feature {
        name: "clear-breakers",
        used_by: |policy, _| policy.principals.iter().any(|one| one.breakers_cleared.is_some()),
    },
    // Settings of the loop detection other than the defaults. The defaults are not written: a gateway without the feature
    // treats loops as it did before the upgrade.
    Feature { name: "loops", used_by: |policy, _| uses_loops(policy) },
    // Budgets that only count. A gateway without the feature would refuse calls that they cover, and would acknowledge a
    // policy that it does not enforce as written.
    Feature {
        name: "monitor-budgets",
        used_by: |policy, _| policy.budgets.iter().any(|budget| budget.mode == BudgetMode::Monitor),
    },
    // What people added to budgets for one period. A gateway without the feature would name the wrong limit in refusals,
    // and would acknowledge a policy that it does not know completely.
    Feature { name: "top-ups", used_by: |policy, _| policy.budgets.iter().any(|budget| budget.top_up.is_some()) },
    // Prices that results state. A gateway without the feature would charge the maximum.
    Feature {
        name: "result-prices",
        used_by: |policy, _| {
            policy.servers.iter().flat_map(|server| &server.tools).any(|tool| tool.result_price.is_some())
        },
    },
    // Texts of catalogues and scopes that agents read. A gateway without the feature would show the server's instead.
    Feature { name: "texts", used_by: |policy, _| uses_texts(policy) },
    // Definitions of tools, of which alone agents may see the texts.
    Feature {
        name: "definitions",
        used_by: |policy, _| policy.servers.iter().flat_map(|server| &server.tools).any(|one| one.definition.is_some()),
    },
    // Names of tools for callers. A gateway without the feature would list and accept the server's names instead.
    Feature {
        name: "aliases",
        used_by: |policy, _| policy.servers.iter().flat_map(|server| &server.tools).any(|one| one.alias.is_some()),
    },
    // Objects whose properties have no fixed names.
    Feature { name: "map-rules", used_by: |policy, _| uses_rule(policy, |rule| matches!(rule, Rule::Map(_))) },
    // Values of one of several types.
    Feature { name: "one-of-rules", used_by: |policy, _| uses_rule(policy, |rule| matches!(rule, Rule::OneOf(_))) },
    // Values that may be `null`.
    Feature {
        name: "nullable-rules",
        used_by: |policy, _| uses_rule(policy, |rule| matches!(rule, Rule::Nullable(_))),
    },
    // Any JSON within bounds.
    Feature { name: "json-rules", used_by: |policy, _| uses_rule(policy, |rule| matches!(rule, Rule::Json(_))) },
    // Servers with the addresses of several pods.
    Feature {
        name: "several-addresses",
        used_by: |policy, _| policy.servers.iter().any(|one| one.addresses.len() > 1),
    },
    // Equal lists of arguments and equal grants are in tables.
    Feature { name: SHARED, used_by: |_, form| form == Form::Shared },
];

/// Returns the names of the features that this version knows, for a gateway's hello.
pub fn known() -> Vec<String> {
    FEATURES.iter().map(|feature| feature.name.to_owned()).collect()
}

/// Returns whether this version knows a feature.
pub fn is_known(name: &str) -> bool {
    FEATURES.iter().any(|feature| feature.name == name)
}

/// Returns the names of the features that a policy in this form uses.
pub fn required(policy: &TenantPolicy, form: Form) -> Vec<String> {
    FEATURES.iter().filter(|feature| (feature.used_by)(policy, form)).map(|feature| feature.name.to_owned()).collect()
}

/// Returns the grants of a policy, each at least once. Principals share most of them.
fn grants(policy: &TenantPolicy) -> impl Iterator<Item = &Grant> {
    let mut seen = HashSet::new();
    let held = policy.principals.iter().flat_map(|principal| &principal.grants);
    held.filter(move |grant| seen.insert(Arc::as_ptr(grant))).map(|grant| &**grant)
}

fn uses_scope_arguments(policy: &TenantPolicy) -> bool {
    grants(policy).any(|grant| grant.tools.iter().any(|tool| tool.arguments.is_some()))
}

fn uses_loops(policy: &TenantPolicy) -> bool {
    let tolerates = |polls| polls == Polls::Tolerated;
    policy
        .servers
        .iter()
        .any(|server| server.loops != LoopSettings::DEFAULT || server.tools.iter().any(|tool| tolerates(tool.polls)))
}

fn uses_texts(policy: &TenantPolicy) -> bool {
    policy.servers.iter().flat_map(|server| &server.tools).any(|tool| tool.shown.is_some())
        || uses(policy, |_| false, |argument| argument.shown.is_some())
}

fn uses_rule(policy: &TenantPolicy, wanted: impl Fn(&Rule) -> bool + Copy) -> bool {
    uses(policy, wanted, |_| false)
}

/// Returns whether an argument or property of the policy is a wanted one, or a rule at any depth.
fn uses(
    policy: &TenantPolicy,
    rule: impl Fn(&Rule) -> bool + Copy,
    argument: impl Fn(&Argument) -> bool + Copy,
) -> bool {
    let catalogue = policy.servers.iter().flat_map(|server| &server.tools).flat_map(|tool| &*tool.arguments);
    let granted = grants(policy).flat_map(|grant| &grant.tools).filter_map(|tool| tool.arguments.as_deref());
    catalogue.chain(granted.flatten()).any(|one| argument_uses(one, rule, argument))
}

fn argument_uses(
    argument: &Argument,
    rule: impl Fn(&Rule) -> bool + Copy,
    wanted: impl Fn(&Argument) -> bool + Copy,
) -> bool {
    wanted(argument) || rule_uses(&argument.rule, rule, wanted)
}

fn rule_uses(rule: &Rule, wanted: impl Fn(&Rule) -> bool + Copy, argument: impl Fn(&Argument) -> bool + Copy) -> bool {
    wanted(rule)
        || match rule {
            Rule::Array(list) => rule_uses(&list.item, wanted, argument),
            Rule::Object(properties) => properties.iter().any(|property| argument_uses(property, wanted, argument)),
            Rule::Map(map) => rule_uses(&map.values, wanted, argument),
            Rule::OneOf(options) => options.iter().any(|option| rule_uses(option, wanted, argument)),
            Rule::Nullable(inner) => rule_uses(inner, wanted, argument),
            Rule::Path(_)
            | Rule::Enum(_)
            | Rule::String(_)
            | Rule::Integer { .. }
            | Rule::Number { .. }
            | Rule::Boolean
            | Rule::Const(_)
            | Rule::Json(_) => false,
        }
}
