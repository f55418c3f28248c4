//! The `ValidatingAdmissionPolicies`: what a CRD's own rules cannot check, because it is too expensive there or depends
//! on the namespace or on who asks.
//!
//! [`with_crds`] are installed with the definitions. [`with_operator`] name the operator's `ServiceAccount`, and are
//! installed with it. ADR 12 explains why each exists.

mod ledgers;
mod namespaces;
mod nested;
mod operator;
mod reserved;
mod size;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation,
    Variable,
};
use kube::core::ObjectMeta;

use crate::names::{GROUP, LABEL_TENANT, LABEL_TENANT_UID, OPERATOR_SERVICE_ACCOUNT, VERSION};

pub use size::{MAX_SCOPE, MAX_SERVER};

/// A policy, and the binding that denies what it does not admit.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The policy.
    pub policy: ValidatingAdmissionPolicy,
    /// The binding of the policy, for every namespace.
    pub binding: ValidatingAdmissionPolicyBinding,
}

/// Returns the policies that are installed with the CRDs, with the name of the file of each.
pub fn with_crds() -> [(&'static str, Admission); 4] {
    [
        ("nested-arguments", nested::policy()),
        ("object-size", size::policy()),
        ("tenant-namespaces", namespaces::objects()),
        ("namespace-marks", namespaces::marks()),
    ]
}

/// Returns the policies that are installed with the operator, which runs in `namespace`.
pub fn with_operator(namespace: &str) -> [Admission; 5] {
    [
        operator::role_bindings(namespace),
        operator::namespaces(namespace),
        operator::specs(namespace),
        reserved::policy(namespace),
        ledgers::policy(namespace),
    ]
}

/// CEL expression for the labels of the namespace of the object.
const NAMESPACE_LABELS: &str = "has(namespaceObject.metadata.labels) ? namespaceObject.metadata.labels : {}";

/// Returns a CEL expression for the name with which the operator authenticates.
fn operator_user(namespace: &str) -> String {
    format!("'system:serviceaccount:{namespace}:{OPERATOR_SERVICE_ACCOUNT}'")
}

/// Returns CEL expressions for whether `labels` mark a namespace as one of a tenant, and as the runtime namespace of one.
fn marks(labels: &str) -> [String; 2] {
    [LABEL_TENANT, LABEL_TENANT_UID].map(|label| format!("'{label}' in {labels}"))
}

/// A policy under construction.
struct Builder {
    name: &'static str,
    spec: ValidatingAdmissionPolicySpec,
}

impl Builder {
    /// Starts a policy on requests with these operations.
    fn new(name: &'static str, operations: &[&str]) -> Self {
        let rule = NamedRuleWithOperations {
            operations: Some(operations.iter().map(|&operation| operation.to_owned()).collect()),
            ..NamedRuleWithOperations::default()
        };
        let constraints = MatchResources { resource_rules: Some(vec![rule]), ..MatchResources::default() };
        let spec = ValidatingAdmissionPolicySpec {
            // What cannot be checked is refused.
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(constraints),
            ..ValidatingAdmissionPolicySpec::default()
        };
        Self { name, spec }
    }

    /// Adds kinds of MCP Fleet, by their plural names.
    fn on_our_kinds(self, plurals: &[&str]) -> Self {
        self.on(GROUP, VERSION, plurals)
    }

    /// Adds kinds, by the plural names in one API group.
    fn on(mut self, group: &str, version: &str, plurals: &[&str]) -> Self {
        let rules = self.spec.match_constraints.get_or_insert_default().resource_rules.get_or_insert_default();
        let operations = rules.first().and_then(|rule| rule.operations.clone());
        rules.retain(|rule| rule.resources.is_some());
        rules.push(NamedRuleWithOperations {
            api_groups: Some(vec![group.to_owned()]),
            api_versions: Some(vec![version.to_owned()]),
            operations,
            resources: Some(plurals.iter().map(|&plural| plural.to_owned()).collect()),
            ..NamedRuleWithOperations::default()
        });
        self
    }

    /// Restricts the policy to requests for which an expression is true.
    fn when(mut self, name: &str, expression: impl Into<String>) -> Self {
        let condition = MatchCondition { name: name.to_owned(), expression: expression.into() };
        self.spec.match_conditions.get_or_insert_default().push(condition);
        self
    }

    /// Adds a variable.
    fn variable(mut self, name: &str, expression: impl Into<String>) -> Self {
        let variable = Variable { name: name.to_owned(), expression: expression.into() };
        self.spec.variables.get_or_insert_default().push(variable);
        self
    }

    /// Adds an expression that must be true, and the message for when it is not.
    fn require(self, reason: &str, expression: impl Into<String>, message: impl Into<String>) -> Self {
        let message = Some(message.into());
        self.validation(reason, Validation { expression: expression.into(), message, ..Validation::default() })
    }

    /// Adds an expression that must be true, and a CEL expression for the message.
    fn require_or_explain(self, reason: &str, expression: impl Into<String>, message: impl Into<String>) -> Self {
        let message_expression = Some(message.into());
        self.validation(
            reason,
            Validation { expression: expression.into(), message_expression, ..Validation::default() },
        )
    }

    fn validation(mut self, reason: &str, validation: Validation) -> Self {
        let validation = Validation { reason: Some(reason.to_owned()), ..validation };
        self.spec.validations.get_or_insert_default().push(validation);
        self
    }

    fn build(self) -> Admission {
        let metadata = ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() };
        let binding = ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(self.name.to_owned()),
            validation_actions: Some(vec!["Deny".to_owned()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        };
        Admission {
            policy: ValidatingAdmissionPolicy {
                metadata: metadata.clone(),
                spec: Some(self.spec),
                ..ValidatingAdmissionPolicy::default()
            },
            binding: ValidatingAdmissionPolicyBinding { metadata, spec: Some(binding) },
        }
    }
}
