//! Compiles the objects of a tenant to its policy: pure and deterministic. Start at [`compile`].
//!
//! Each object gets a [`Verdict`]. If an object is rejected, what was in force of it before (matched by UID) stays in
//! force; a new object contributes nothing. Removals, suspensions and revocations always apply, even when the rest of
//! their object is rejected: a mistake can keep a grant from growing, but never from shrinking. The same holds for an
//! object that cannot even be read; see [`unreadable`].

mod budget;
mod limit;
mod prices;
mod principal;
mod scope;
mod server;
#[cfg(test)]
pub mod tests;
mod unreadable;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::BuiltInTools;
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use mcp_fleet_policy::model::{
    Budget, BudgetMode, Grant, Principal, Selector, Server, StaleAfter, TenantLimits, TenantPolicy, Uid,
    VerificationKey,
};

use crate::guard::Unreadable;
use crate::shared_state::verdict::{Kind, Verdict};

use limit::Refused;

pub use limit::Limit;

/// Name of the budget that enforces the tenant's `spendLimit`.
pub const SPEND_LIMIT: &str = "spendLimit";

/// Everything that the policy of one tenant is compiled from.
#[derive(Clone, Debug)]
pub struct TenantInputs {
    pub tenant: Arc<MCPTenant>,
    /// Servers in the tenant's namespace.
    pub servers: Vec<Arc<MCPServer>>,
    /// Scopes in the tenant's namespace.
    pub scopes: Vec<Arc<MCPScope>>,
    /// Principals in the tenant's namespace.
    pub principals: Vec<Arc<MCPPrincipal>>,
    /// Budgets in the tenant's namespace.
    pub budgets: Vec<Arc<MCPBudget>>,
    /// Objects that cannot be read.
    pub unreadable: UnreadableInputs,
    /// Addresses of the shims in the pods of servers, by UID of the server.
    pub addresses: BTreeMap<Uid, Vec<SocketAddr>>,
    /// Keys that sign the tenant's tokens, or that signed tokens which may still be valid.
    pub keys: Vec<VerificationKey>,
    /// Key that seals session ids.
    pub session_key: Vec<u8>,
    /// `aud` of the tenant's tokens.
    pub audience: String,
    /// Further origins that tokens may be for.
    pub other_audiences: Vec<String>,
    /// `iss` of the tenant's tokens.
    pub issuer: String,
    /// Highest revocation that was ever in force, by UID of the principal, in Unix seconds.
    pub revocations: BTreeMap<Uid, i64>,
    /// Current time, Unix seconds.
    pub now: i64,
}

impl TenantInputs {
    /// Returns the addresses of the shims in the pods of a server.
    fn addresses_of(&self, server_uid: &str) -> Vec<SocketAddr> {
        self.addresses.get(server_uid).cloned().unwrap_or_default()
    }
}

/// Objects that cannot be read. What was in force of them before stays in force.
#[derive(Clone, Debug, Default)]
pub struct UnreadableInputs {
    /// The tenant itself, if it cannot be read; [`TenantInputs::tenant`] then is its readable part.
    pub tenant: Option<Arc<Unreadable<MCPTenant>>>,
    /// Servers in the tenant's namespace.
    pub servers: Vec<Arc<Unreadable<MCPServer>>>,
    /// Scopes in the tenant's namespace.
    pub scopes: Vec<Arc<Unreadable<MCPScope>>>,
    /// Principals in the tenant's namespace.
    pub principals: Vec<Arc<Unreadable<MCPPrincipal>>>,
    /// Budgets in the tenant's namespace.
    pub budgets: Vec<Arc<Unreadable<MCPBudget>>>,
}

/// The previously published policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The policy. It is shared with the control streams.
    pub policy: Arc<TenantPolicy>,
    /// UIDs of the scopes that the policy was compiled from, by name.
    pub scopes: BTreeMap<String, Uid>,
}

/// A compiled policy, with a verdict on each object.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The policy. It has the generation of the previous policy; publishing increments it.
    pub policy: TenantPolicy,
    /// UIDs of all scopes, by name.
    pub scopes: BTreeMap<String, Uid>,
    /// Verdicts, by kind and UID of the object.
    pub verdicts: BTreeMap<(Kind, Uid), Verdict>,
    /// When a revocation in the future becomes due and the policy must be compiled again, Unix seconds.
    pub recheck_at: Option<i64>,
}

/// Why an object was not compiled as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    reason: ConditionReason,
    message: String,
}

impl Rejection {
    fn new(reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// State of one compilation.
struct Compilation<'a> {
    inputs: &'a TenantInputs,
    previous: Option<&'a Previous>,
    before: Before<'a>,
    /// Objects that do not fit into the policy.
    refused: &'a Refused,
    verdicts: BTreeMap<(Kind, Uid), Verdict>,
}

/// Parts of the previous policy, to look them up.
#[derive(Default)]
struct Before<'a> {
    /// By UID.
    servers: HashMap<&'a str, &'a Server>,
    /// By UID.
    principals: HashMap<&'a str, &'a Principal>,
    /// Grants that a principal held, by name of the scope.
    grants: HashMap<&'a str, &'a Arc<Grant>>,
}

impl<'a> Before<'a> {
    fn new(previous: &'a Previous) -> Self {
        let TenantPolicy { servers, principals, .. } = &*previous.policy;
        let held = principals.iter().flat_map(|principal| &principal.grants);
        Self {
            servers: servers.iter().map(|server| (server.uid.as_str(), server)).collect(),
            principals: principals.iter().map(|principal| (principal.uid.as_str(), principal)).collect(),
            grants: held.map(|grant| (grant.scope.as_str(), grant)).collect(),
        }
    }
}

impl Compilation<'_> {
    /// Returns the rejection of an object that does not fit into the policy; none if it fits.
    fn refusal(&self, kind: Kind, object: &impl ResourceExt) -> Option<Rejection> {
        let size = self.refused.get(&(kind, uid(object)))?;
        Some(limit::rejection(*size))
    }

    /// Sets the verdict on an object that is compiled as it is written, with a note about what applies to it.
    fn set_note(&mut self, kind: Kind, object: &impl ResourceExt, (reason, message): (ConditionReason, String)) {
        let object_generation = object.meta().generation.unwrap_or_default();
        self.verdicts.insert((kind, uid(object)), Verdict { ok: true, reason, message, object_generation });
    }

    fn set_verdict(&mut self, kind: Kind, object: &impl ResourceExt, rejection: Option<Rejection>) {
        let (ok, rejection) = match rejection {
            None => (true, Rejection::new(ConditionReason::Resolved, "all referenced objects exist")),
            Some(rejection) => (false, rejection),
        };
        let verdict = Verdict {
            ok,
            reason: rejection.reason,
            message: rejection.message,
            object_generation: object.meta().generation.unwrap_or_default(),
        };
        self.verdicts.insert((kind, uid(object)), verdict);
    }
}

fn uid(object: &impl ResourceExt) -> Uid {
    object.uid().unwrap_or_default()
}

fn is_alive(object: &impl ResourceExt) -> bool {
    object.meta().deletion_timestamp.is_none()
}

/// Compiles the policy of one tenant. If it would be larger than the limit, the newest objects are refused.
pub fn compile(inputs: &TenantInputs, previous: Option<&Previous>, limit: Limit) -> Compiled {
    // A tenant that was deleted and created again has nothing in force.
    let previous = previous.filter(|previous| previous.policy.tenant_uid == uid(&*inputs.tenant));
    let compiled = compile_without(inputs, previous, &Refused::new());
    if limit::fits(&compiled.policy, limit) {
        return compiled;
    }
    compile_without(inputs, previous, &limit::refused(inputs, previous, &compiled, limit))
}

/// Compiles the policy, with these objects as they were before.
fn compile_without(inputs: &TenantInputs, previous: Option<&Previous>, refused: &Refused) -> Compiled {
    let tenant_uid = uid(&*inputs.tenant);
    let before = previous.map(Before::new).unwrap_or_default();
    let mut compilation = Compilation { inputs, previous, before, refused, verdicts: BTreeMap::new() };
    let spend_limit = spend_limit(&mut compilation);
    let currency = spend_limit.as_ref().map(|(_, currency)| currency.clone());
    let servers = server::compile(&mut compilation, currency.is_some());
    let (grants, scopes) = scope::compile(&mut compilation, &servers);
    let (principals, recheck_at) = principal::compile(&mut compilation, &grants);
    let mut budgets: Vec<Budget> = spend_limit.into_iter().map(|(budget, _)| budget).collect();
    budgets.extend(budget::compile(&mut compilation, &servers, &principals, currency.is_some()));
    let mut keys = inputs.keys.clone();
    keys.sort_by(|a, b| a.kid.cmp(&b.kid));
    let spec = &inputs.tenant.spec;
    let kept = compilation.previous.filter(|_| inputs.unreadable.tenant.is_some()).map(|previous| &*previous.policy);
    let policy = TenantPolicy {
        tenant: inputs.tenant.name_any(),
        tenant_uid,
        generation: previous.map_or(0, |previous| previous.policy.generation),
        suspended: spec.suspend || !is_alive(&*inputs.tenant) || unreadable::is_tenant_suspended(&compilation),
        audience: inputs.audience.clone(),
        other_audiences: kept.map_or(&inputs.other_audiences, |policy| &policy.other_audiences).clone(),
        issuer: inputs.issuer.clone(),
        keys,
        session_key: inputs.session_key.clone(),
        traffic: kept.map_or(
            TenantLimits {
                calls_per_minute: spec.traffic.calls_per_minute,
                max_concurrent_calls: spec.traffic.max_concurrent_calls,
            },
            |policy| policy.traffic,
        ),
        built_in_tools: kept.map_or(spec.built_in_tools == BuiltInTools::Enabled, |policy| policy.built_in_tools),
        allowed_origins: kept.map_or(&spec.endpoint.allowed_origins, |policy| &policy.allowed_origins).clone(),
        stale_after: kept.map_or(
            StaleAfter { read: spec.policy.stale_after.read.get(), write: spec.policy.stale_after.write.get() },
            |policy| policy.stale_after,
        ),
        currency,
        servers,
        principals,
        budgets,
    };
    Compiled { policy, scopes, verdicts: compilation.verdicts, recheck_at }
}

/// Returns the budget for the tenant's `spendLimit`, and its currency. Removing the limit has no effect while tools
/// have prices.
fn spend_limit(compilation: &mut Compilation<'_>) -> Option<(Budget, mcp_fleet_policy::units::Currency)> {
    if compilation.inputs.unreadable.tenant.is_some() {
        return unreadable::spend_limit(compilation);
    }
    let tenant = Arc::clone(&compilation.inputs.tenant);
    if let Some(limit) = &tenant.spec.spend_limit {
        if let Some(in_force) = unreadable::spend_limit(compilation)
            .filter(|(budget, currency)| budget.period != limit.period || *currency != limit.currency)
        {
            let message = format!(
                "spendLimit has another currency or period than the one in force, {} per {:?}, in which spending is \
                 recorded; the limit in force stays as it is. Change the two fields back",
                in_force.1.as_str(),
                in_force.0.period
            );
            compilation.set_verdict(
                Kind::Tenant,
                &*tenant,
                Some(Rejection::new(ConditionReason::InvalidSpec, message)),
            );
            return Some(in_force);
        }
        let budget = Budget {
            name: SPEND_LIMIT.to_owned(),
            uid: uid(&*tenant),
            selector: Selector::default(),
            period: limit.period,
            amount: Some(limit.amount),
            calls: None,
            mode: BudgetMode::Enforce,
            top_up: None,
        };
        compilation.set_verdict(Kind::Tenant, &*tenant, None);
        return Some((budget, limit.currency.clone()));
    }
    let priced: BTreeSet<String> = compilation
        .inputs
        .servers
        .iter()
        .filter(|server| is_alive(&***server) && server.spec.tools.iter().any(|tool| tool.price.is_some()))
        .map(|server| server.name_any())
        .collect();
    let previous = compilation.previous.filter(|_| !priced.is_empty()).and_then(|previous| {
        let currency = previous.policy.currency.clone()?;
        let budget = previous.policy.budgets.iter().find(|budget| budget.uid == previous.policy.tenant_uid)?;
        Some((budget.clone(), currency))
    });
    let rejection = previous.as_ref().map(|_| {
        let names = name_list(&priced);
        Rejection::new(
            ConditionReason::CurrencyMissing,
            format!("spendLimit was removed, but tools of {names} have prices, so the previous limit stays in force; set spendLimit again or remove the prices"),
        )
    });
    compilation.set_verdict(Kind::Tenant, &*tenant, rejection);
    previous
}

/// Formats names for a message: the first five, and how many more there are.
pub fn name_list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let (first, rest) = names.split_at(names.len().min(5));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", first.join(", "))
}
