//! From the objects of a tenant to its policy: pure, deterministic, and careful with what it does not understand.
//!
//! An object that cannot be compiled is told so in a [`Verdict`], and what was in force of it before, by its UID,
//! stays in force; a new one contributes nothing. Removals, suspensions and revocations always apply, even when the
//! rest of their object is bad: a mistake may keep a grant from growing, never from shrinking.

mod budget;
mod principal;
mod scope;
mod server;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use mcp_fleet_policy::model::{Budget, Selector, StaleAfter, TenantLimits, TenantPolicy, Uid, VerificationKey};

pub use principal::{Revocation, revocation};

use crate::verdict::{Kind, Verdict};

/// The name of the budget that is the tenant's ceiling.
pub const SPEND_LIMIT: &str = "spendLimit";

/// Everything that a policy is made of.
#[derive(Clone, Debug)]
pub struct TenantInputs {
    /// The tenant.
    pub tenant: Arc<MCPTenant>,
    /// The servers of its namespace.
    pub servers: Vec<Arc<MCPServer>>,
    /// The scopes of its namespace.
    pub scopes: Vec<Arc<MCPScope>>,
    /// The principals of its namespace.
    pub principals: Vec<Arc<MCPPrincipal>>,
    /// The budgets of its namespace.
    pub budgets: Vec<Arc<MCPBudget>>,
    /// Where the shims listen, by the server's UID.
    pub upstreams: BTreeMap<Uid, SocketAddr>,
    /// Keys that sign the tenant's tokens, or signed ones that may still be good.
    pub keys: Vec<VerificationKey>,
    /// The key that seals session ids.
    pub session_key: Vec<u8>,
    /// `aud` of the tenant's tokens.
    pub audience: String,
    /// `iss` of the tenant's tokens.
    pub issuer: String,
    /// Revocations that were ever in force, by the principal's UID, in Unix seconds.
    pub latches: BTreeMap<Uid, i64>,
    /// The clock, Unix seconds.
    pub now: i64,
}

/// What was in force before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The published policy.
    pub policy: TenantPolicy,
    /// The UIDs of the scopes whose grants it holds, by name.
    pub scopes: BTreeMap<String, Uid>,
}

/// A policy, and what was thought of each object on the way.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The policy; its generation is the one before, and counted up when it is published.
    pub policy: TenantPolicy,
    /// The UIDs of all scopes, by name.
    pub scopes: BTreeMap<String, Uid>,
    /// By kind and UID.
    pub verdicts: BTreeMap<(Kind, Uid), Verdict>,
    /// When to compile again though nothing changes, Unix seconds: a revocation in the future becomes due.
    pub recheck_at: Option<i64>,
}

/// Why an object is not part of the policy as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    reason: ConditionReason,
    message: String,
}

impl Problem {
    fn new(reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What is known while compiling.
struct Context<'a> {
    inputs: &'a TenantInputs,
    previous: Option<&'a Previous>,
    verdicts: BTreeMap<(Kind, Uid), Verdict>,
}

impl Context<'_> {
    fn judge(&mut self, kind: Kind, object: &impl ResourceExt, problem: Option<Problem>) {
        let (ok, problem) = match problem {
            None => (true, Problem::new(ConditionReason::Resolved, "everything that is referred to exists")),
            Some(problem) => (false, problem),
        };
        let verdict = Verdict {
            ok,
            reason: problem.reason,
            message: problem.message,
            object_generation: object.meta().generation.unwrap_or_default(),
        };
        self.verdicts.insert((kind, uid(object)), verdict);
    }
}

fn uid(object: &impl ResourceExt) -> Uid {
    object.uid().unwrap_or_default()
}

fn alive(object: &impl ResourceExt) -> bool {
    object.meta().deletion_timestamp.is_none()
}

/// Compiles the policy of one tenant.
pub fn compile(inputs: &TenantInputs, previous: Option<&Previous>) -> Compiled {
    let tenant_uid = uid(&*inputs.tenant);
    // A tenant that was deleted and made anew has nothing in force.
    let previous = previous.filter(|previous| previous.policy.tenant_uid == tenant_uid);
    let mut context = Context { inputs, previous, verdicts: BTreeMap::new() };
    let ceiling = ceiling(&mut context);
    let currency = ceiling.as_ref().map(|(_, currency)| currency.clone());
    let servers = server::compile(&mut context, currency.is_some());
    let (grants, scopes) = scope::compile(&mut context, &servers);
    let (principals, recheck_at) = principal::compile(&mut context, &grants);
    let mut budgets: Vec<Budget> = ceiling.into_iter().map(|(budget, _)| budget).collect();
    budgets.extend(budget::compile(&mut context, &servers, &principals, currency.is_some()));
    let mut keys = inputs.keys.clone();
    keys.sort_by(|a, b| a.kid.cmp(&b.kid));
    let spec = &inputs.tenant.spec;
    let policy = TenantPolicy {
        tenant: inputs.tenant.name_any(),
        tenant_uid,
        generation: previous.map_or(0, |previous| previous.policy.generation),
        suspended: spec.suspend || !alive(&*inputs.tenant),
        audience: inputs.audience.clone(),
        issuer: inputs.issuer.clone(),
        keys,
        session_key: inputs.session_key.clone(),
        traffic: TenantLimits {
            calls_per_minute: spec.traffic.calls_per_minute,
            max_concurrent_calls: spec.traffic.max_concurrent_calls,
        },
        stale_after: StaleAfter {
            read: spec.policy.stale_after.read.get(),
            write: spec.policy.stale_after.write.get(),
        },
        currency,
        servers,
        principals,
        budgets,
    };
    Compiled { policy, scopes, verdicts: context.verdicts, recheck_at }
}

/// The tenant's ceiling and its currency. It cannot be taken away while tools have prices.
fn ceiling(context: &mut Context<'_>) -> Option<(Budget, mcp_fleet_policy::units::Currency)> {
    let tenant = Arc::clone(&context.inputs.tenant);
    if let Some(limit) = &tenant.spec.spend_limit {
        let budget = Budget {
            name: SPEND_LIMIT.to_owned(),
            uid: uid(&*tenant),
            selector: Selector::default(),
            period: limit.period,
            amount: Some(limit.amount),
            calls: None,
        };
        context.judge(Kind::Tenant, &*tenant, None);
        return Some((budget, limit.currency.clone()));
    }
    let priced: BTreeSet<String> = context
        .inputs
        .servers
        .iter()
        .filter(|server| alive(&***server) && server.spec.tools.iter().any(|tool| tool.price.is_some()))
        .map(|server| server.name_any())
        .collect();
    let kept = context.previous.filter(|_| !priced.is_empty()).and_then(|previous| {
        let currency = previous.policy.currency.clone()?;
        let budget = previous.policy.budgets.iter().find(|budget| budget.uid == previous.policy.tenant_uid)?;
        Some((budget.clone(), currency))
    });
    let problem = kept.as_ref().map(|_| {
        let names = list(&priced);
        Problem::new(
            ConditionReason::CurrencyMissing,
            format!("spendLimit was removed, but tools of {names} have prices; the limit before stays in force: set it again or remove the prices"),
        )
    });
    context.judge(Kind::Tenant, &*tenant, problem);
    kept
}

/// Some names for a message: the first five, and how many more there are.
fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let (first, rest) = names.split_at(names.len().min(5));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", first.join(", "))
}
