//! A structural schema, prepared for checking objects: compiled patterns and rules.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use regex::Regex;
use serde_json::Value;

use crate::cel::{Engine, Expression};
use crate::{DefinitionError, metadata_schema};

/// The schema of one value, and of the values in it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a schema has them")]
pub(crate) struct Node {
    pub(crate) kind: Option<String>,
    pub(crate) is_int_or_string: bool,
    pub(crate) is_time: bool,
    pub(crate) keeps_unknown_fields: bool,
    pub(crate) is_nullable: bool,
    pub(crate) default: Option<Value>,
    pub(crate) required: Vec<String>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) length: (Option<usize>, Option<usize>),
    pub(crate) items_count: (Option<usize>, Option<usize>),
    pub(crate) properties_count: (Option<usize>, Option<usize>),
    pub(crate) range: (Option<f64>, Option<f64>),
    pub(crate) list: List,
    pub(crate) properties: BTreeMap<String, Self>,
    /// Schema of the values of a map.
    pub(crate) values: Option<Box<Self>>,
    pub(crate) items: Option<Box<Self>>,
    pub(crate) rules: Vec<Rule>,
}

/// Which items of a list are the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// None.
    Atomic,
    /// Equal ones.
    Set,
    /// Those with equal values of these fields.
    Map(Vec<String>),
}

/// A CEL rule, with what it says about an object that breaks it.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) expression: Expression,
    pub(crate) message: String,
    /// Whether it compares with the stored object.
    pub(crate) is_transition: bool,
}

impl Node {
    pub(crate) fn new(engine: &Engine, schema: &JSONSchemaProps) -> Result<Self, DefinitionError> {
        let JSONSchemaProps { all_of, any_of, one_of, not, ref_path, pattern_properties, .. } = schema;
        let combined = [all_of, any_of, one_of].iter().any(|schemas| schemas.as_ref().is_some_and(|it| !it.is_empty()));
        if combined || not.is_some() || ref_path.is_some() || pattern_properties.is_some() {
            return Err(DefinitionError::Unsupported("a schema that combines others"));
        }
        if schema.exclusive_minimum == Some(true)
            || schema.exclusive_maximum == Some(true)
            || schema.multiple_of.is_some()
        {
            return Err(DefinitionError::Unsupported("an exclusive bound, or a multiple"));
        }
        let child = |schema: &JSONSchemaProps| Self::new(engine, schema);
        let size = |value: Option<i64>| value.and_then(|value| usize::try_from(value).ok());
        let properties = schema.properties.iter().flatten();
        Ok(Self {
            kind: schema.type_.clone(),
            is_int_or_string: schema.x_kubernetes_int_or_string == Some(true),
            is_time: schema.format.as_deref() == Some("date-time"),
            keeps_unknown_fields: schema.x_kubernetes_preserve_unknown_fields == Some(true),
            is_nullable: schema.nullable == Some(true),
            default: schema.default.as_ref().map(|default| default.0.clone()),
            required: schema.required.clone().unwrap_or_default(),
            allowed: schema.enum_.iter().flatten().map(|value| value.0.clone()).collect(),
            pattern: schema.pattern.as_deref().map(|pattern| engine.pattern(pattern)).transpose()?,
            length: (size(schema.min_length), size(schema.max_length)),
            items_count: (size(schema.min_items), size(schema.max_items)),
            properties_count: (size(schema.min_properties), size(schema.max_properties)),
            range: (schema.minimum, schema.maximum),
            list: match schema.x_kubernetes_list_type.as_deref() {
                Some("set") => List::Set,
                Some("map") => List::Map(schema.x_kubernetes_list_map_keys.clone().unwrap_or_default()),
                _ => List::Atomic,
            },
            properties: properties
                .map(|(name, schema)| Ok((name.clone(), child(schema)?)))
                .collect::<Result<_, DefinitionError>>()?,
            values: match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(values)) => Some(Box::new(child(values)?)),
                Some(JSONSchemaPropsOrBool::Bool(_)) => {
                    return Err(DefinitionError::Unsupported("a map of anything"));
                }
                None => None,
            },
            items: match &schema.items {
                Some(JSONSchemaPropsOrArray::Schema(items)) => Some(Box::new(child(items)?)),
                Some(JSONSchemaPropsOrArray::Schemas(_)) => return Err(DefinitionError::Unsupported("a tuple")),
                None => None,
            },
            rules: schema
                .x_kubernetes_validations
                .iter()
                .flatten()
                .map(|rule| Rule::new(engine, rule))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Adds the fields that every object has, which a definition leaves out.
    pub(crate) fn add_envelope(&mut self, engine: &Engine) -> Result<(), DefinitionError> {
        let schema = |value: Value| -> Result<Self, DefinitionError> {
            let schema = serde_json::from_value(value);
            Self::new(engine, &schema.map_err(|_| DefinitionError::Unsupported("the schema of metadata"))?)
        };
        for name in ["apiVersion", "kind"] {
            self.properties.insert(name.to_owned(), schema(serde_json::json!({"type": "string"}))?);
        }
        self.properties.insert("metadata".to_owned(), schema(metadata_schema())?);
        Ok(())
    }

    /// Returns the schema of a field or of a value of a map; none if it is not known.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.values.as_deref())
    }
}

impl Rule {
    fn new(engine: &Engine, rule: &ValidationRule) -> Result<Self, DefinitionError> {
        if rule.message_expression.is_some() || rule.optional_old_self == Some(true) || rule.field_path.is_some() {
            return Err(DefinitionError::Unsupported("a rule with a message expression, oldSelf or a field path"));
        }
        Ok(Self {
            expression: engine.compile(&rule.rule)?,
            message: rule.message.clone().unwrap_or_else(|| format!("failed rule: {}", rule.rule)),
            is_transition: rule.rule.contains("oldSelf"),
        })
    }
}
