//! Compiles scopes: the grant of each, checked against the catalogue that is in force on its server.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::MCPScope;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::scope::ScopedTool;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Argument, Grant, GrantedTool, Rule, Scalar, Server, Uid};

use super::{Compilation, Rejection, is_alive, uid, unreadable};
use crate::shared_state::verdict::Kind;

/// Grants by name of the scope; none if the scope exists, but nothing of it is in force.
pub(super) type ScopeGrants = BTreeMap<String, Option<Arc<Grant>>>;

/// Compiles the scopes. Returns their grants, and the UIDs of all scopes by name.
pub(super) fn compile(compilation: &mut Compilation<'_>, servers: &[Server]) -> (ScopeGrants, BTreeMap<String, Uid>) {
    let objects: Vec<Arc<MCPScope>> =
        compilation.inputs.scopes.iter().filter(|scope| is_alive(&***scope)).cloned().collect();
    let mut grants = ScopeGrants::new();
    let mut uids = BTreeMap::new();
    for object in objects {
        let refusal = compilation.refusal(Kind::Scope, &*object);
        let compiled = refusal.map_or_else(|| from_spec(compilation, &object, servers), Err);
        let grant = match &compiled {
            Ok(grant) => Some(Arc::new(grant.clone())),
            Err(_) => from_previous(compilation, &object, servers),
        };
        grants.insert(object.name_any(), grant);
        uids.insert(object.name_any(), uid(&*object));
        compilation.set_verdict(Kind::Scope, &*object, compiled.err());
    }
    unreadable::scopes(compilation, servers, &mut grants, &mut uids);
    (grants, uids)
}

/// Compiles the grant as it is written.
fn from_spec(compilation: &Compilation<'_>, object: &MCPScope, servers: &[Server]) -> Result<Grant, Rejection> {
    let name = &object.spec.server_ref.name;
    let Some(server) = servers.iter().find(|server| server.name == *name) else {
        let exists = compilation.inputs.servers.iter().any(|server| server.name_any() == *name);
        let hint = if exists { "is not in force; see its conditions" } else { "does not exist in this namespace" };
        return Err(Rejection::new(
            ConditionReason::ServerNotFound,
            format!("serverRef.name {name:?} {hint}; correct the name or create the MCPServer"),
        ));
    };
    super::server::check_number(object.spec.tools.iter().map(|tool| tool.arguments.as_ref().map_or(0, Vec::len)))?;
    let mut tools: Vec<GrantedTool> = Vec::new();
    for tool in &object.spec.tools {
        let Some(declared) = server.tools.iter().find(|declared| declared.name == tool.name) else {
            let advice = match server.tool_on_wire(&tool.name) {
                Some(aliased) => format!("it is the `as` of tool {:?}, whose name scopes have to use", aliased.name),
                None => "correct the name or declare it there".to_owned(),
            };
            return Err(Rejection::new(
                ConditionReason::ToolNotFound,
                format!("tools: {:?} is not in the catalogue of MCPServer {name:?}; {advice}", tool.name),
            ));
        };
        let arguments = match &tool.arguments {
            None => None,
            Some(list) => {
                let arguments = super::server::arguments(&tool.name, list)?;
                check_satisfiable(&tool.name, &arguments, &declared.arguments)?;
                Some(arguments)
            }
        };
        tools.push(GrantedTool { name: tool.name.clone(), arguments: arguments.map(Into::into) });
    }
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Grant {
        scope: object.name_any(),
        server_uid: server.uid.clone(),
        tools,
        classes: sorted(object.spec.classes.iter().copied()),
    })
}

/// Checks that some call could satisfy both the scope's argument rules and the catalogue's.
fn check_satisfiable(tool: &str, granted: &[Argument], declared: &[Argument]) -> Result<(), Rejection> {
    for argument in granted {
        let Some(other) = declared.iter().find(|other| other.name == argument.name) else {
            return Err(Rejection::new(
                ConditionReason::ToolNotFound,
                format!(
                    "tool {tool:?}: argument {:?} is not in the server's catalogue; correct the name or declare it there",
                    argument.name
                ),
            ));
        };
        if !same_json_type(&argument.rule, &other.rule) {
            return Err(Rejection::new(
                ConditionReason::InvalidSpec,
                format!(
                    "tool {tool:?}: no value of argument {:?} can satisfy both its type here and the one in the server's catalogue; use the same type",
                    argument.name
                ),
            ));
        }
    }
    let missing = declared.iter().find(|other| other.required && !granted.iter().any(|one| one.name == other.name));
    match missing {
        None => Ok(()),
        Some(missing) => Err(Rejection::new(
            ConditionReason::InvalidSpec,
            format!(
                "tool {tool:?}: its required argument {:?} is not among the arguments, so no call would be allowed; add it",
                missing.name
            ),
        )),
    }
}

/// Returns whether values of both rules have the same JSON type, also inside arrays and objects.
fn same_json_type(one: &Rule, other: &Rule) -> bool {
    #[derive(PartialEq)]
    enum Json {
        String,
        Number,
        Boolean,
        Array,
        Object,
        Any,
    }
    let json = |rule: &Rule| match rule {
        Rule::Path(_) | Rule::Enum(_) | Rule::String(_) | Rule::Const(Scalar::String(_)) => Json::String,
        Rule::Integer { .. } | Rule::Number { .. } | Rule::Const(Scalar::Integer(_)) => Json::Number,
        Rule::Boolean | Rule::Const(Scalar::Boolean(_)) => Json::Boolean,
        Rule::Array(_) => Json::Array,
        Rule::Object(_) | Rule::Map(_) => Json::Object,
        Rule::OneOf(_) | Rule::Nullable(_) | Rule::Json(_) => Json::Any,
    };
    match (one, other) {
        (Rule::Json(_), _) | (_, Rule::Json(_)) => true,
        (Rule::Nullable(inner), other) | (other, Rule::Nullable(inner)) => same_json_type(inner, other),
        (Rule::OneOf(options), other) | (other, Rule::OneOf(options)) => {
            options.iter().any(|option| same_json_type(option, other))
        }
        (Rule::Array(one), Rule::Array(other)) => same_json_type(&one.item, &other.item),
        (Rule::Map(one), Rule::Map(other)) => same_json_type(&one.values, &other.values),
        (Rule::Map(map), Rule::Object(list)) | (Rule::Object(list), Rule::Map(map)) => {
            list.iter().all(|property| same_json_type(&property.rule, &map.values))
        }
        (Rule::Object(one), Rule::Object(other)) => one.iter().all(|property| {
            other
                .iter()
                .find(|same| same.name == property.name)
                .is_none_or(|same| same_json_type(&property.rule, &same.rule))
        }),
        _ => json(one) == json(other),
    }
}

fn sorted(classes: impl Iterator<Item = Class>) -> Vec<Class> {
    let mut classes: Vec<Class> = classes.collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// Returns the grant that was in force, without the parts that the scope no longer contains.
fn from_previous(compilation: &Compilation<'_>, object: &MCPScope, servers: &[Server]) -> Option<Arc<Grant>> {
    let grant = previous_grant(compilation, &object.name_any(), &uid(object))?;
    let server = servers.iter().find(|server| server.uid == grant.server_uid)?;
    Some(Arc::new(narrowed(grant, server, Some(&object.spec.tools), Some(&object.spec.classes))))
}

/// Returns the grant of a scope that was in force, if it was that of the same object.
pub(super) fn previous_grant<'a>(compilation: &Compilation<'a>, name: &str, scope_uid: &Uid) -> Option<&'a Grant> {
    let previous = compilation.previous?;
    if previous.scopes.get(name) != Some(scope_uid) {
        return None;
    }
    compilation.before.grants.get(name).map(|grant| &***grant)
}

/// Returns a grant without the parts that its scope no longer contains. None: it is not known what the scope contains.
///
/// A tool that the scope no longer names keeps its entry while the scope still has the tool's class. Without the entry,
/// the class would grant more of the tool than was ever in force.
pub(super) fn narrowed(
    grant: &Grant,
    server: &Server,
    tools: Option<&[ScopedTool]>,
    classes: Option<&[Class]>,
) -> Grant {
    let has_class = |class: &Class| classes.is_none_or(|classes| classes.contains(class));
    let classes = sorted(grant.classes.iter().copied().filter(has_class));
    let named = |tool: &str| tools.is_none_or(|tools| tools.iter().any(|other| other.name == tool));
    let covered = |tool: &str| server.tools.iter().any(|other| other.name == tool && classes.contains(&other.class));
    let tools = grant.tools.iter().filter(|tool| named(&tool.name) || covered(&tool.name)).cloned().collect();
    Grant { tools, classes, ..grant.clone() }
}
