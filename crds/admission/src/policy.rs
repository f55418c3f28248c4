//! `ValidatingAdmissionPolicies` on our kinds.

use std::collections::BTreeMap;

use cel::Value as Cel;
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, ValidatingAdmissionPolicy, Validation, Variable};
use mcp_fleet_crds::names::GROUP;
use serde_json::{Value, json};

use crate::DefinitionError;
use crate::cel::{Engine, Expression, value};

/// A policy, compiled.
#[derive(Debug)]
pub(crate) struct Policy {
    name: String,
    plurals: Vec<String>,
    operations: Vec<String>,
    conditions: Vec<Expression>,
    variables: Vec<(String, Expression)>,
    validations: Vec<(Expression, Message)>,
}

#[derive(Debug)]
enum Message {
    Text(String),
    Computed(Expression),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'r> {
    pub(crate) operation: &'static str,
    pub(crate) plural: &'r str,
    pub(crate) object: &'r Value,
    pub(crate) old: Option<&'r Value>,
    pub(crate) namespace_labels: &'r BTreeMap<String, String>,
}

impl Policy {
    /// Compiles a policy; none if it is about other kinds than ours.
    pub(crate) fn new(engine: &Engine, policy: &ValidatingAdmissionPolicy) -> Result<Option<Self>, DefinitionError> {
        let spec = policy.spec.clone().unwrap_or_default();
        let rules = spec.match_constraints.and_then(|constraints| constraints.resource_rules).unwrap_or_default();
        let ours = |groups: &Option<Vec<String>>| groups.iter().flatten().any(|group| group == GROUP);
        let rules: Vec<_> = rules.into_iter().filter(|rule| ours(&rule.api_groups)).collect();
        if rules.is_empty() {
            return Ok(None);
        }
        let message = |validation: &Validation| match &validation.message_expression {
            Some(expression) => engine.compile(expression).map(Message::Computed),
            None => Ok(Message::Text(validation.message.clone().unwrap_or_default())),
        };
        let compiled = Self {
            name: policy.metadata.name.clone().unwrap_or_default(),
            plurals: rules.iter().flat_map(|rule| rule.resources.clone().unwrap_or_default()).collect(),
            operations: rules.iter().flat_map(|rule| rule.operations.clone().unwrap_or_default()).collect(),
            conditions: spec
                .match_conditions
                .iter()
                .flatten()
                .map(|MatchCondition { expression, .. }| engine.compile(expression))
                .collect::<Result<_, _>>()?,
            variables: spec
                .variables
                .iter()
                .flatten()
                .map(|Variable { name, expression }| Ok((name.clone(), engine.compile(expression)?)))
                .collect::<Result<_, DefinitionError>>()?,
            validations: spec
                .validations
                .iter()
                .flatten()
                .map(|validation| Ok((engine.compile(&validation.expression)?, message(validation)?)))
                .collect::<Result<_, DefinitionError>>()?,
        };
        Ok(Some(compiled))
    }

    /// Returns why the policy denies a request; none if it does not.
    pub(crate) fn denial(&self, engine: &Engine, request: &Request<'_>) -> Option<String> {
        let applies = self.plurals.iter().any(|plural| plural == request.plural)
            && self.operations.iter().any(|operation| operation == request.operation);
        applies.then(|| self.evaluate(engine, request)).and_then(Result::err).map(|reason| {
            format!("ValidatingAdmissionPolicy '{0}' with binding '{0}' denied request: {reason}", self.name)
        })
    }

    fn evaluate(&self, engine: &Engine, request: &Request<'_>) -> Result<(), String> {
        let mut known = request.variables();
        for condition in &self.conditions {
            if !engine.is_true(condition, &known)? {
                return Ok(());
            }
        }
        let mut variables = std::collections::HashMap::new();
        for (name, expression) in &self.variables {
            // A variable that cannot be evaluated matters only where it is used, and there it is missing.
            if let Ok(computed) = engine.evaluate(expression, &with_variables(&known, &variables)) {
                variables.insert(name.clone(), computed);
            }
        }
        known = with_variables(&known, &variables);
        for (expression, message) in &self.validations {
            if engine.is_true(expression, &known)? {
                continue;
            }
            return Err(match message {
                Message::Text(text) => text.clone(),
                Message::Computed(expression) => match engine.evaluate(expression, &known) {
                    Ok(Cel::String(text)) => text.to_string(),
                    _ => format!("failed expression: {}", expression.text()),
                },
            });
        }
        Ok(())
    }
}

fn with_variables<'n>(
    known: &[(&'n str, Cel)],
    variables: &std::collections::HashMap<String, Cel>,
) -> Vec<(&'n str, Cel)> {
    let mut known: Vec<_> = known.iter().filter(|(name, _)| *name != "variables").cloned().collect();
    known.push(("variables", variables.clone().into()));
    known
}

impl Request<'_> {
    fn variables(&self) -> Vec<(&'static str, Cel)> {
        let Self { operation, plural, object, old, namespace_labels } = *self;
        let metadata = &object["metadata"];
        let request = json!({
            "operation": operation, "name": metadata["name"], "namespace": metadata["namespace"],
            "resource": {"group": GROUP, "resource": plural}, "userInfo": {"username": "mcp-fleet-try"},
        });
        let namespace = json!({"metadata": {"name": metadata["namespace"], "labels": namespace_labels}});
        vec![
            ("object", value(object)),
            ("oldObject", old.map_or(Cel::Null, value)),
            ("request", value(&request)),
            ("namespaceObject", value(&namespace)),
        ]
    }
}
