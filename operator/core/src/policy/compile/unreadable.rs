//! What stays in force of objects that cannot be read: what was in force before, matched by UID, and nothing of one that
//! was never in force.
//!
//! Fields that can be read may still restrict: a suspension, a revocation, a removed tool or scope. Where the field that
//! stops calls cannot be read itself, the calls are stopped.

use std::sync::Arc;

use kube::ResourceExt as _;
use mcp_fleet_policy::model::{Budget, Grant, Principal, Server, Uid};
use mcp_fleet_policy::units::Currency;

use super::principal::{Revocation, revocation};
use super::scope::{self, ScopeGrants};
use super::{Compilation, is_alive, uid};

/// Returns the budget of the tenant's `spendLimit` that was in force, and its currency.
pub(super) fn spend_limit(compilation: &Compilation<'_>) -> Option<(Budget, Currency)> {
    let policy = &compilation.previous?.policy;
    let budget = policy.budgets.iter().find(|budget| budget.uid == policy.tenant_uid)?;
    Some((budget.clone(), policy.currency.clone()?))
}

/// Returns whether a tenant that cannot be read is suspended, even if a readable `suspend` is false: it was suspended
/// before, or `suspend` itself cannot be read.
pub(super) fn is_tenant_suspended(compilation: &Compilation<'_>) -> bool {
    compilation.inputs.unreadable.tenant.as_ref().is_some_and(|tenant| {
        tenant.with_field("suspend").is_none() || compilation.previous.is_none_or(|previous| previous.policy.suspended)
    })
}

/// Returns the servers that stay in force, at their current addresses.
pub(super) fn servers(compilation: &Compilation<'_>) -> Vec<Server> {
    let objects = compilation.inputs.unreadable.servers.iter().filter(|object| is_alive(&***object));
    let server = |object: &_| {
        let server_uid = uid(object);
        let previous = *compilation.before.servers.get(server_uid.as_str())?;
        Some(Server { addresses: compilation.inputs.addresses_of(&server_uid), ..previous.clone() })
    };
    objects
        .filter_map(|object| {
            let mut server = server(&**object)?;
            if let Some(partial) = object.with_field("tools") {
                server.tools.retain(|tool| partial.spec.tools.iter().any(|declared| declared.name == tool.name));
            }
            Some(server)
        })
        .collect()
}

/// Adds the scopes that cannot be read to those that can.
pub(super) fn scopes(
    compilation: &Compilation<'_>,
    servers: &[Server],
    grants: &mut ScopeGrants,
    uids: &mut std::collections::BTreeMap<String, Uid>,
) {
    for object in compilation.inputs.unreadable.scopes.iter().filter(|object| is_alive(&***object)) {
        let (name, scope_uid) = (object.name_any(), uid(&**object));
        let grant = scope::previous_grant(compilation, &name, &scope_uid).and_then(|grant| {
            let server = servers.iter().find(|server| server.uid == grant.server_uid)?;
            let tools = object.with_field("tools").map(|partial| partial.spec.tools.as_slice());
            let classes = object.with_field("classes").map(|partial| partial.spec.classes.as_slice());
            Some(Arc::new(scope::narrowed(grant, server, tools, classes)))
        });
        grants.insert(name.clone(), grant);
        uids.insert(name, scope_uid);
    }
}

/// Returns the principals that stay in force, and when the next revocation becomes due.
pub(super) fn principals(compilation: &Compilation<'_>, scopes: &ScopeGrants) -> (Vec<Principal>, Option<i64>) {
    let (mut principals, mut recheck_at) = (Vec::new(), None);
    for object in compilation.inputs.unreadable.principals.iter().filter(|object| is_alive(&***object)) {
        let principal_uid = uid(&**object);
        let Some(&previous) = compilation.before.principals.get(principal_uid.as_str()) else { continue };
        let in_force = previous.revoked_until.max(compilation.inputs.revocations.get(&principal_uid).copied());
        let revocable = object.with_field("revokeIssuedBefore");
        let Revocation { revoked_until, due_at } = match revocable {
            Some(partial) => revocation(partial, in_force, compilation.inputs.now),
            None => Revocation { revoked_until: in_force, due_at: None },
        };
        recheck_at = [recheck_at, due_at].into_iter().flatten().min();
        let suspended = object.with_field("suspend").is_none_or(|partial| partial.spec.suspend);
        let holds = |grant: &Grant| {
            let partial = object.with_field("scopeRefs");
            partial.is_none_or(|partial| partial.spec.scope_refs.iter().any(|scope| scope.name == grant.scope))
        };
        let held = previous.grants.iter().filter(|grant| holds(grant));
        principals.push(Principal {
            suspended: suspended || revocable.is_none() || previous.suspended,
            revoked_until,
            // As the scopes are now: they can be restricted while the principal cannot be read.
            grants: held.filter_map(|grant| scopes.get(&grant.scope).cloned().flatten()).collect(),
            ..previous.clone()
        });
    }
    (principals, recheck_at)
}

/// Returns the budgets that stay in force. One that is being deleted applies until it is gone.
pub(super) fn budgets(compilation: &Compilation<'_>) -> Vec<Budget> {
    let previous = compilation.previous.map_or(&[][..], |previous| &previous.policy.budgets);
    let objects = compilation.inputs.unreadable.budgets.iter();
    objects
        .filter_map(|object| {
            let budget_uid = uid(&**object);
            previous.iter().find(|budget| budget.uid == budget_uid).cloned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mcp_fleet_crds::MCPPrincipal;
    use mcp_fleet_crds::condition::ConditionReason;
    use mcp_fleet_policy::class::Class;
    use serde_json::{Value, json};

    use super::super::tests::{NOW, catalogue, coder, grant, inputs, previous, published, reason, tenant};
    use super::super::{Compiled, Kind, Limit, Previous, TenantInputs};
    use crate::guard::{GuardedKind, Unreadable};
    use crate::testing::unreadable;

    fn compile(inputs: &TenantInputs, previous: Option<&Previous>) -> Compiled {
        super::super::compile(inputs, previous, Limit::DEFAULT)
    }

    fn object<K: GuardedKind>(name: &str, spec: &Value) -> Arc<Unreadable<K>> {
        let value = json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": K::kind(&()), "spec": spec,
            "metadata": {"name": name, "namespace": "acme", "uid": format!("uid-{name}"), "generation": 2},
        });
        Arc::new(unreadable(value))
    }

    /// The inputs, with a principal that cannot be read because of its limits.
    fn with_principal(spec: &Value) -> TenantInputs {
        let mut spec = spec.clone();
        if spec.get("limits").is_none() {
            spec["limits"] = json!({"burst": -1});
        }
        let mut inputs = inputs();
        inputs.principals.clear();
        inputs.unreadable.principals.push(object::<MCPPrincipal>("coder", &spec));
        inputs
    }

    fn with_tenant(spec: &Value) -> TenantInputs {
        let mut inputs = inputs();
        let mut whole = json!({"namespace": {"name": "acme"}, "traffic": {"callsPerMinute": -1}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = object("acme", &whole);
        inputs.tenant = object.partial.clone().unwrap();
        inputs.unreadable.tenant = Some(object);
        inputs
    }

    #[test]
    fn an_unreadable_principal_keeps_its_grants_and_limits() {
        let compiled = compile(&with_principal(&json!({"scopeRefs": [{"name": "reports"}]})), Some(&previous()));
        assert_eq!(compiled.policy, *previous().policy);
        assert!(!compiled.verdicts.contains_key(&(Kind::Principal, "uid-coder".into())));
        assert_eq!(compile(&with_principal(&json!({})), None).policy.principals, [], "it was never in force");
    }

    #[test]
    fn an_unreadable_principal_loses_what_its_scopes_lose() {
        let compiled = compile(&with_principal(&json!({"scopeRefs": []})), Some(&previous()));
        assert_eq!(coder(&compiled).grants, [], "the scope was removed from the principal");
        let mut inputs = with_principal(&json!({"scopeRefs": [{"name": "reports"}]}));
        inputs.scopes.clear();
        assert_eq!(coder(&compile(&inputs, Some(&previous()))).grants, [], "the scope was deleted");
        let unknown = compile(&with_principal(&json!({"scopeRefs": "reports"})), Some(&previous()));
        assert!(grant(&unknown, "reports").is_some());
    }

    #[test]
    fn suspending_and_revoking_an_unreadable_principal_takes_effect() {
        let compiled = compile(&with_principal(&json!({"suspend": true})), Some(&previous()));
        assert!(coder(&compiled).suspended);
        let compiled = compile(&with_principal(&json!({"suspend": false})), Some(&published(&compiled)));
        assert!(coder(&compiled).suspended, "what restricts stays in force as well");
        let day = "2026-11-10T00:00:00Z";
        let compiled = compile(&with_principal(&json!({"revokeIssuedBefore": day})), Some(&previous()));
        let day = day.parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!((coder(&compiled).revoked_until, coder(&compiled).suspended), (Some(day), false));
        let mut inputs = with_principal(&json!({}));
        assert_eq!(coder(&compile(&inputs, Some(&published(&compiled)))).revoked_until, Some(day));
        inputs.revocations.insert("uid-coder".into(), NOW - 1);
        assert_eq!(coder(&compile(&inputs, Some(&published(&compiled)))).revoked_until, Some(NOW - 1));
    }

    #[test]
    fn a_revocation_of_an_unreadable_principal_waits_until_it_is_due() {
        let due = "2026-11-30T00:00:00Z";
        let mut inputs = with_principal(&json!({"revokeIssuedBefore": due}));
        let due = due.parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!(compile(&inputs, Some(&previous())).recheck_at, Some(due));
        inputs.now = due;
        assert_eq!(coder(&compile(&inputs, Some(&previous()))).revoked_until, Some(due));
    }

    #[test]
    fn a_principal_whose_suspension_or_revocation_cannot_be_read_is_suspended() {
        for spec in [json!({"suspend": "yes"}), json!({"revokeIssuedBefore": "soon"}), json!("nothing")] {
            let mut inputs = inputs();
            inputs.principals.clear();
            inputs.unreadable.principals.push(object::<MCPPrincipal>("coder", &spec));
            assert!(coder(&compile(&inputs, Some(&previous()))).suspended, "{spec}");
        }
    }

    #[test]
    fn an_unreadable_tenant_keeps_its_limits() {
        let mut inputs = inputs();
        inputs.tenant = tenant(&json!({"traffic": {"callsPerMinute": 60}}));
        let previous = published(&compile(&inputs, None));
        let edit = json!({
            "spendLimit": {"currency": "USD", "period": "Month", "amount": "900.00"},
            "policy": {"staleAfter": {"read": "1h", "write": "1h"}},
            "images": {"allowed": "all"},
        });
        let compiled = compile(&with_tenant(&edit), Some(&previous));
        let expected = &previous.policy;
        let found = &compiled.policy;
        assert_eq!((found.traffic, found.stale_after), (expected.traffic, expected.stale_after));
        assert_eq!((&found.budgets, &found.currency), (&expected.budgets, &expected.currency));
        assert_eq!(found.principals, expected.principals);
        assert!(!found.suspended);
        // The images that it allows are not known, so servers keep what was in force.
        assert_eq!(reason(&compiled, Kind::Server, "files"), Some(ConditionReason::ImageNotAllowed));
        assert_eq!(found.servers, expected.servers);
    }

    #[test]
    fn an_unreadable_tenant_keeps_its_names() {
        let accepted = || vec!["https://mcp.example.com".to_owned()];
        let with_name = TenantInputs { other_audiences: accepted(), ..inputs() };
        let previous = published(&compile(&with_name, None));
        let kept = compile(&with_tenant(&json!({"endpoint": "mcp.example.com"})), Some(&previous));
        assert_eq!((kept.policy.other_audiences, previous.policy.other_audiences.clone()), (accepted(), accepted()));
        assert!(compile(&inputs(), Some(&previous)).policy.other_audiences.is_empty());
    }

    #[test]
    fn an_unreadable_tenant_can_be_suspended_but_not_resumed() {
        for suspend in [json!(true), json!("yes")] {
            let compiled = compile(&with_tenant(&json!({"suspend": suspend})), Some(&previous()));
            assert!(compiled.policy.suspended);
            let compiled = compile(&with_tenant(&json!({"suspend": false})), Some(&published(&compiled)));
            assert!(compiled.policy.suspended);
        }
        assert!(!compile(&with_tenant(&json!({"suspend": false})), Some(&previous())).policy.suspended);
    }

    #[test]
    fn an_unreadable_server_keeps_the_tools_that_it_still_declares() {
        let source = json!({"type": "Stdio", "stdio": {"image": "mcp-fleet.local/files:dev", "command": ["files"]}});
        let mut inputs = inputs();
        inputs.servers.clear();
        inputs.addresses.insert("uid-files".into(), vec!["10.244.0.8:8443".parse().unwrap()]);
        let tools = json!([catalogue()[0], {"name": "new", "class": "Read"}]);
        let spec = json!({"source": source, "tools": tools, "replicas": -1});
        inputs.unreadable.servers.push(object("files", &spec));
        let compiled = compile(&inputs, Some(&previous()));
        let [server] = compiled.policy.servers.as_slice() else { panic!("{:?}", compiled.policy.servers) };
        assert_eq!(server.addresses, ["10.244.0.8:8443".parse().unwrap()]);
        assert_eq!(server.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["read"]);
        assert!(grant(&compiled, "reports").is_some());
        inputs.unreadable.servers = vec![object("files", &json!({"source": {"type": "Odd"}}))];
        let compiled = compile(&inputs, Some(&previous()));
        assert_eq!(compiled.policy.servers[0].tools.len(), 3, "nothing is known of its tools");
        assert_eq!(compile(&inputs, None).policy.servers, [], "it was never in force");
    }

    #[test]
    fn an_unreadable_scope_keeps_what_it_still_grants() {
        let mut inputs = inputs();
        inputs.scopes.clear();
        inputs.unreadable.scopes.push(object("reports", &json!({"serverRef": {}})));
        let compiled = compile(&inputs, Some(&previous()));
        assert_eq!(compiled.policy, *previous().policy, "nothing else is known of it");
        for (spec, tools, classes) in [
            (json!({"tools": "none"}), 1, &[][..]),
            (json!({"tools": [], "classes": "none"}), 1, &[Class::Read]),
            (json!({"tools": [{"name": "read"}], "classes": "none"}), 1, &[Class::Read]),
        ] {
            let mut whole = json!({"serverRef": {"name": "files"}});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            inputs.unreadable.scopes = vec![object("reports", &whole)];
            let compiled = compile(&inputs, Some(&previous()));
            let found = grant(&compiled, "reports").unwrap();
            assert_eq!((found.tools.len(), found.classes.as_slice()), (tools, classes), "{spec}");
        }
        assert_eq!(compile(&inputs, None).policy.principals[0].grants, [], "it was never in force");
    }

    #[test]
    fn an_unreadable_budget_stays_in_force() {
        let mut inputs = inputs();
        inputs.budgets.clear();
        inputs.unreadable.budgets.push(object("daily", &json!({"period": "Day", "amount": "9999999999"})));
        assert_eq!(compile(&inputs, Some(&previous())).policy, *previous().policy);
        assert_eq!(compile(&inputs, None).policy.budgets.len(), 1, "only the spend limit");
    }

    #[test]
    fn unreadable_budgets_count_towards_the_limit() {
        let budget = |number: usize| {
            let mut budget = (*inputs().budgets[0]).clone();
            budget.metadata.name = Some(format!("b-{number}"));
            budget.metadata.uid = Some(format!("uid-b-{number}"));
            Arc::new(budget)
        };
        let mut inputs = inputs();
        inputs.budgets = (0..256).map(budget).collect();
        let previous = published(&compile(&inputs, None));
        inputs.budgets = (1..257).map(budget).collect();
        inputs.unreadable.budgets.push(object("b-0", &json!({"period": "Day", "amount": "9999999999"})));
        let compiled = compile(&inputs, Some(&previous));
        assert_eq!(compiled.policy.budgets, previous.policy.budgets);
        assert_eq!(reason(&compiled, Kind::Budget, "b-256"), Some(ConditionReason::TooManyBudgets));
    }

    #[test]
    fn an_unreadable_object_that_was_recreated_inherits_nothing() {
        let mut inputs = with_principal(&json!({"scopeRefs": [{"name": "reports"}]}));
        let principal = Arc::make_mut(&mut inputs.unreadable.principals[0]);
        principal.metadata.uid = Some("uid-other".into());
        assert_eq!(compile(&inputs, Some(&previous())).policy.principals, []);
    }
}
