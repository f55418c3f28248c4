//! The custom resource definitions as they are shipped: the derived schemas, and what a derive cannot express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, ValidationRule,
};
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::names::MAX_NAME;
use crate::{MCPBudget, MCPLedger, MCPPrincipal, MCPScope, MCPServer, MCPTenant};

/// Every definition, in the order in which `crds/yaml` lists them.
pub fn all() -> Vec<CustomResourceDefinition> {
    let named = [MCPTenant::crd(), MCPServer::crd(), MCPScope::crd(), MCPPrincipal::crd(), MCPBudget::crd()];
    named.into_iter().map(with_name_rule).chain([MCPLedger::crd()]).collect()
}

/// CEL rules as the value of `x-kubernetes-validations`: pairs of an expression that has to hold, and a message that
/// says what to do.
pub(crate) fn rules(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// Adds the rule on `metadata.name`, which belongs to no type of ours.
fn with_name_rule(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let kind = crd.spec.names.kind.clone();
    let roots = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for root in roots.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        add_name_rule(root, &kind);
    }
    crd
}

fn add_name_rule(root: &mut JSONSchemaProps, kind: &str) {
    root.x_kubernetes_validations.get_or_insert_default().push(ValidationRule {
        rule: format!(
            "self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
        ),
        message: Some(format!(
            "the name of an {kind} must be at most {MAX_NAME} characters, begin with a letter, and hold only lower \
             case letters, digits and dashes: Services and Secrets are named after it"
        )),
        ..ValidationRule::default()
    });
}
