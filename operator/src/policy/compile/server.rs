//! Servers: their catalogues, and where they listen.

use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_policy::model::{Argument, Server, ServerLimits, Tool};
use mcp_fleet_policy::units::Micros;

use super::{Context, Problem, alive, uid};
use crate::credentials::ca;
use crate::policy::images::AllowedImages;
use crate::shared_state::verdict::Kind;

/// The servers in force, by name.
pub(super) fn compile(context: &mut Context<'_>, has_currency: bool) -> Vec<Server> {
    let mut sources: Vec<Arc<MCPServer>> =
        context.inputs.servers.iter().filter(|server| alive(&***server)).cloned().collect();
    sources.sort_by_key(|server| server.name_any());
    let tenant_uid = uid(&*context.inputs.tenant);
    let images = AllowedImages::new(&context.inputs.tenant.spec.images);
    let mut in_force = Vec::new();
    for source in sources {
        let server_uid = uid(&*source);
        let outcome = written(&images, &source, has_currency);
        let catalogue = match &outcome {
            Ok((tools, limits)) => Some((tools.clone(), *limits)),
            Err(_) => before(context, &source),
        };
        if let Some((tools, limits)) = catalogue {
            in_force.push(Server {
                name: source.name_any(),
                upstream: context.inputs.upstreams.get(&server_uid).copied(),
                identity: ca::server_identity(&tenant_uid, &server_uid),
                uid: server_uid,
                tools,
                limits,
            });
        }
        context.judge(Kind::Server, &*source, outcome.err());
    }
    in_force
}

/// The catalogue and the limits as the object says.
fn written(
    images: &AllowedImages,
    source: &MCPServer,
    has_currency: bool,
) -> Result<(Vec<Tool>, ServerLimits), Problem> {
    if let Some(stdio) = &source.spec.source.stdio
        && let Err((reason, message)) = images.check(&stdio.image)
    {
        return Err(Problem::new(reason, message));
    }
    let mut tools: Vec<Tool> = Vec::new();
    for tool in &source.spec.tools {
        let price = tool.price.as_ref().map_or(Micros::ZERO, |price| price.per_call);
        if tool.price.is_some() && !has_currency {
            return Err(Problem::new(
                ConditionReason::CurrencyMissing,
                format!(
                    "tool {:?} has a price, but the tenant has no spendLimit, which sets the currency; ask the platform team for one or remove the price",
                    tool.name
                ),
            ));
        }
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(Problem::new(
                ConditionReason::InvalidSpec,
                format!("tool {:?} is declared twice; remove one of them", tool.name),
            ));
        }
        let arguments = arguments(&tool.name, &tool.arguments)?;
        tools.push(Tool { name: tool.name.clone(), class: tool.class, arguments, price });
    }
    let limits = &source.spec.limits;
    let limits = ServerLimits {
        timeout: limits.timeout.get(),
        max_request: limits.max_request_size,
        max_response: limits.max_response_size,
        max_concurrent_calls: limits.max_concurrent_calls,
    };
    Ok((tools, limits))
}

/// Arguments as the policy has them.
pub(super) fn arguments(tool: &str, list: &[mcp_fleet_crds::argument::Argument]) -> Result<Vec<Argument>, Problem> {
    let mut arguments: Vec<Argument> = Vec::with_capacity(list.len());
    for argument in list {
        let argument = Argument::try_from(argument)
            .map_err(|error| Problem::new(ConditionReason::InvalidSpec, format!("tool {tool:?}, argument {error}")))?;
        if arguments.iter().any(|other| other.name == argument.name) {
            return Err(Problem::new(
                ConditionReason::InvalidSpec,
                format!("tool {tool:?}, argument {:?} is declared twice; remove one of them", argument.name),
            ));
        }
        arguments.push(argument);
    }
    // What the gateway could not enforce would be refused there as a whole, with everything else of the tenant.
    mcp_fleet_policy::rules::validate_arguments(&arguments)
        .map_err(|error| Problem::new(ConditionReason::InvalidSpec, format!("tool {tool:?}: {error}")))?;
    Ok(arguments)
}

/// What was in force of a server, less the tools that are no longer written.
fn before(context: &Context<'_>, source: &MCPServer) -> Option<(Vec<Tool>, ServerLimits)> {
    let server_uid = uid(source);
    let server = context.previous?.policy.servers.iter().find(|server| server.uid == server_uid)?;
    let written = |tool: &&Tool| source.spec.tools.iter().any(|other| other.name == tool.name);
    Some((server.tools.iter().filter(written).cloned().collect(), server.limits))
}
