//! Scopes: what each grants on its server, checked against the catalogue that is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::MCPScope;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::{Argument, Grant, GrantedTool, Rule, Scalar, Server, Uid};

use super::{Context, Problem, alive, uid};
use crate::shared_state::verdict::Kind;

/// What the scopes grant, by the scope's name; none: the scope exists, but nothing of it is in force.
pub(super) type Grants = BTreeMap<String, Option<Grant>>;

/// The grants in force, and the UIDs of all scopes by name.
pub(super) fn compile(context: &mut Context<'_>, servers: &[Server]) -> (Grants, BTreeMap<String, Uid>) {
    let sources: Vec<Arc<MCPScope>> = context.inputs.scopes.iter().filter(|scope| alive(&***scope)).cloned().collect();
    let mut grants = Grants::new();
    let mut uids = BTreeMap::new();
    for source in sources {
        let written = written(context, &source, servers);
        let grant = match &written {
            Ok(grant) => Some(grant.clone()),
            Err(_) => before(context, &source, servers),
        };
        grants.insert(source.name_any(), grant);
        uids.insert(source.name_any(), uid(&*source));
        context.judge(Kind::Scope, &*source, written.err());
    }
    (grants, uids)
}

/// The grant as the object says.
fn written(context: &Context<'_>, source: &MCPScope, servers: &[Server]) -> Result<Grant, Problem> {
    let name = &source.spec.server_ref.name;
    let Some(server) = servers.iter().find(|server| server.name == *name) else {
        let exists = context.inputs.servers.iter().any(|server| server.name_any() == *name);
        let hint = if exists { "is not in force: see its conditions" } else { "does not exist in this namespace" };
        return Err(Problem::new(
            ConditionReason::ServerNotFound,
            format!("serverRef.name {name:?} {hint}; correct the name or create the MCPServer"),
        ));
    };
    let mut tools: Vec<GrantedTool> = Vec::new();
    for tool in &source.spec.tools {
        let Some(declared) = server.tools.iter().find(|declared| declared.name == tool.name) else {
            return Err(Problem::new(
                ConditionReason::ToolNotFound,
                format!(
                    "tools: {:?} is not in the catalogue of MCPServer {name:?}; correct the name or declare it there",
                    tool.name
                ),
            ));
        };
        let arguments = match &tool.arguments {
            None => None,
            Some(list) => {
                let arguments = super::server::arguments(&tool.name, list)?;
                fits(&tool.name, &arguments, &declared.arguments)?;
                Some(arguments)
            }
        };
        tools.push(GrantedTool { name: tool.name.clone(), arguments });
    }
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Grant {
        scope: source.name_any(),
        server_uid: server.uid.clone(),
        tools,
        classes: sorted(source.spec.classes.iter().copied()),
    })
}

/// Whether any call could satisfy the scope's arguments and the catalogue's.
fn fits(tool: &str, granted: &[Argument], declared: &[Argument]) -> Result<(), Problem> {
    for argument in granted {
        let Some(other) = declared.iter().find(|other| other.name == argument.name) else {
            return Err(Problem::new(
                ConditionReason::ToolNotFound,
                format!(
                    "tool {tool:?}: argument {:?} is not in the server's catalogue; correct the name or declare it there",
                    argument.name
                ),
            ));
        };
        if !compatible(&argument.rule, &other.rule) {
            return Err(Problem::new(
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
        Some(missing) => Err(Problem::new(
            ConditionReason::InvalidSpec,
            format!(
                "tool {tool:?}: its required argument {:?} is not among arguments, so that no call could pass; add it",
                missing.name
            ),
        )),
    }
}

/// Whether values of both rules have the same JSON type, also inside lists and objects.
fn compatible(one: &Rule, other: &Rule) -> bool {
    #[derive(PartialEq)]
    enum Json {
        String,
        Number,
        Boolean,
        Array,
        Object,
    }
    let json = |rule: &Rule| match rule {
        Rule::Path(_) | Rule::Enum(_) | Rule::String(_) | Rule::Const(Scalar::String(_)) => Json::String,
        Rule::Integer { .. } | Rule::Number { .. } | Rule::Const(Scalar::Integer(_)) => Json::Number,
        Rule::Boolean | Rule::Const(Scalar::Boolean(_)) => Json::Boolean,
        Rule::Array(_) => Json::Array,
        Rule::Object(_) => Json::Object,
    };
    match (one, other) {
        (Rule::Array(one), Rule::Array(other)) => compatible(&one.item, &other.item),
        (Rule::Object(one), Rule::Object(other)) => one.iter().all(|property| {
            other
                .iter()
                .find(|same| same.name == property.name)
                .is_none_or(|same| compatible(&property.rule, &same.rule))
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

/// What was in force of a scope, less what is no longer written.
///
/// A named tool that is no longer named keeps its entry while a class that covers it stays: without the entry the
/// class would grant more of it than was ever in force.
fn before(context: &Context<'_>, source: &MCPScope, servers: &[Server]) -> Option<Grant> {
    let previous = context.previous?;
    let name = source.name_any();
    if previous.scopes.get(&name) != Some(&uid(source)) {
        return None;
    }
    let mut grants = previous.policy.principals.iter().flat_map(|principal| &principal.grants);
    let grant = grants.find(|grant| grant.scope == name)?;
    let server = servers.iter().find(|server| server.uid == grant.server_uid)?;
    let classes = sorted(grant.classes.iter().copied().filter(|class| source.spec.classes.contains(class)));
    let named = |tool: &str| source.spec.tools.iter().any(|other| other.name == tool);
    let covered = |tool: &str| server.tools.iter().any(|other| other.name == tool && classes.contains(&other.class));
    let tools = grant.tools.iter().filter(|tool| named(&tool.name) || covered(&tool.name)).cloned().collect();
    Some(Grant { scope: name, server_uid: grant.server_uid.clone(), tools, classes })
}
