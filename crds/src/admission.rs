//! The `ValidatingAdmissionPolicy` for nested arguments, which are too expensive to check with rules in the CRDs.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation, Variable,
};
use kube::api::ObjectMeta;

use crate::names::{GROUP, VERSION};
use crate::union;

/// Name of the policy and of its binding.
pub const NAME: &str = "mcp-fleet-nested-arguments";

/// CEL expression for the values at depth 2, by tool and argument.
const SECOND: &str = "(has(object.spec.tools) ? object.spec.tools : []).map(t, (has(t.arguments) ? t.arguments : \
                      []).map(a, has(a.array) ? dyn([a.array.items]) : has(a.object) ? dyn(a.object.properties) : \
                      dyn([])))";

/// CEL expression for the values at depth 3, by tool, argument and value at depth 2.
const THIRD: &str = "variables.second.map(t, t.map(a, a.map(v, has(v.array) ? dyn([v.array.items]) : has(v.object) ? \
                     dyn(v.object.properties) : dyn([]))))";

/// Returns the policy: every rule on nested arguments of servers and scopes.
pub fn policy() -> ValidatingAdmissionPolicy {
    let second = union::rules(union::AT_DEPTH_2).into_iter().map(|(rule, message)| {
        validation(format!("variables.second.all(t, t.all(a, a.all(v, {rule})))"), "at depth 2", message)
    });
    let third = union::rules(union::AT_DEPTH_3).into_iter().map(|(rule, message)| {
        validation(format!("variables.third.all(t, t.all(a, a.all(w, w.all(v, {rule}))))"), "at depth 3", message)
    });
    ValidatingAdmissionPolicy {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: Some(vec![GROUP.to_owned()]),
                    api_versions: Some(vec![VERSION.to_owned()]),
                    operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
                    resources: Some(vec!["mcpservers".to_owned(), "mcpscopes".to_owned()]),
                    ..NamedRuleWithOperations::default()
                }]),
                ..MatchResources::default()
            }),
            variables: Some(vec![variable("second", SECOND), variable("third", THIRD)]),
            validations: Some(second.chain(third).collect()),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    }
}

/// Returns the binding, which denies invalid objects in every namespace.
pub fn binding() -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(NAME.to_owned()),
            validation_actions: Some(vec!["Deny".to_owned()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    }
}

fn variable(name: &str, expression: &str) -> Variable {
    Variable { name: name.to_owned(), expression: expression.to_owned() }
}

fn validation(expression: String, depth: &str, message: &str) -> Validation {
    Validation {
        expression,
        message: Some(format!("spec.tools[].arguments[], {depth}: {message}")),
        reason: Some("Invalid".to_owned()),
        ..Validation::default()
    }
}
