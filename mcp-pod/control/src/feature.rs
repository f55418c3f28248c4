//! The named parts of a policy that its reader has to know (`required_features`).
//!
//! The writer names what the policy uses; a reader that meets a name it does not know refuses the whole policy and
//! says which name it was. New restrictions get a new row here in the same change that adds their field.

use mcp_fleet_policy::model::{Argument, Rule, TenantPolicy};

/// One named part.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// The name on the wire; never changed once released.
    pub name: &'static str,
    /// Whether a policy makes use of it.
    used_by: fn(&TenantPolicy) -> bool,
}

/// Everything that this build knows, in the order in which names stand on the wire.
pub const FEATURES: &[Feature] = &[
    // Tenants, servers, catalogues, principals, grants, traffic and staleness as of the first version.
    Feature { name: "v1", used_by: |_| true },
    // Budgets, and leases for what they cover.
    Feature { name: "budgets", used_by: |policy| !policy.budgets.is_empty() },
    // Argument lists of scopes, which hold beside those of the catalogue.
    Feature { name: "scope-arguments", used_by: uses_scope_arguments },
    // Paths, and their resolution by the shim.
    Feature { name: "path-rules", used_by: |policy| uses_rule(policy, |rule| matches!(rule, Rule::Path(_))) },
    // Rules within rules.
    Feature {
        name: "nested-rules",
        used_by: |policy| uses_rule(policy, |rule| matches!(rule, Rule::Array(_) | Rule::Object(_))),
    },
];

/// The names of everything that this build knows: what a gateway says in its hello.
pub fn known() -> Vec<String> {
    FEATURES.iter().map(|feature| feature.name.to_owned()).collect()
}

/// Whether this build knows a name.
pub fn is_known(name: &str) -> bool {
    FEATURES.iter().any(|feature| feature.name == name)
}

/// The names of what a policy uses.
pub fn required(policy: &TenantPolicy) -> Vec<String> {
    FEATURES.iter().filter(|feature| (feature.used_by)(policy)).map(|feature| feature.name.to_owned()).collect()
}

fn uses_scope_arguments(policy: &TenantPolicy) -> bool {
    let mut grants = policy.principals.iter().flat_map(|principal| &principal.grants);
    grants.any(|grant| grant.tools.iter().any(|tool| tool.arguments.is_some()))
}

fn uses_rule(policy: &TenantPolicy, wanted: impl Fn(&Rule) -> bool + Copy) -> bool {
    let catalogue = policy.servers.iter().flat_map(|server| &server.tools).flat_map(|tool| &tool.arguments);
    let granted = policy.principals.iter().flat_map(|principal| &principal.grants).flat_map(|grant| &grant.tools);
    let mut arguments = catalogue.chain(granted.flat_map(|tool| tool.arguments.iter().flatten()));
    arguments.any(|argument| argument_uses(argument, wanted))
}

fn argument_uses(argument: &Argument, wanted: impl Fn(&Rule) -> bool + Copy) -> bool {
    rule_uses(&argument.rule, wanted)
}

fn rule_uses(rule: &Rule, wanted: impl Fn(&Rule) -> bool + Copy) -> bool {
    wanted(rule)
        || match rule {
            Rule::Array(list) => rule_uses(&list.item, wanted),
            Rule::Object(properties) => properties.iter().any(|property| argument_uses(property, wanted)),
            Rule::Path(_)
            | Rule::Enum(_)
            | Rule::String(_)
            | Rule::Integer { .. }
            | Rule::Number { .. }
            | Rule::Boolean
            | Rule::Const(_) => false,
        }
}
