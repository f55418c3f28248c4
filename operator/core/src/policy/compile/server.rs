//! Compiles servers: their catalogues, limits and addresses.

use std::sync::Arc;

use kube::ResourceExt;
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::argument::MAX_ALL_ARGUMENTS;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::server::Price;
use mcp_fleet_policy::built_in::BuiltIn;
use mcp_fleet_policy::loops::LoopSettings;
use mcp_fleet_policy::model::{Argument, Breaker, DefinitionDigest, Server, ServerLimits, Shown, Tool};
use mcp_fleet_policy::price::{Pointer, ResultPrice};
use mcp_fleet_policy::units::Micros;

use super::prices::{self, Floors};
use super::{Compilation, Rejection, is_alive, uid, unreadable};
use crate::credentials::ca;
use crate::policy::images::AllowedImages;
use crate::shared_state::verdict::Kind;

/// Compiles the servers, sorted by name. A rejected server that was never in force is left out.
pub(super) fn compile(compilation: &mut Compilation<'_>, has_currency: bool) -> Vec<Server> {
    let mut objects: Vec<Arc<MCPServer>> =
        compilation.inputs.servers.iter().filter(|server| is_alive(&***server)).cloned().collect();
    objects.sort_by_key(|server| server.name_any());
    let tenant_uid = uid(&*compilation.inputs.tenant);
    let floors = Floors::new(compilation);
    let images = AllowedImages::new(&compilation.inputs.tenant.spec.images);
    let mut servers = Vec::new();
    for object in objects {
        let server_uid = uid(&*object);
        let refusal = compilation.refusal(Kind::Server, &*object);
        let (compiled, rejection) = match refusal.map_or_else(|| from_spec(&images, &object, has_currency), Err) {
            Ok(compiled) => (Some(compiled), None),
            Err(rejection) => (from_previous(compilation, &object), Some(rejection)),
        };
        let mut raised = Vec::new();
        if let Some(Compiled { mut tools, limits, breaker, loops }) = compiled {
            raised = floors.raise(&object.name_any(), &server_uid, &mut tools);
            servers.push(Server {
                name: object.name_any(),
                addresses: compilation.inputs.addresses_of(&server_uid),
                identity: ca::server_identity(&tenant_uid, &server_uid),
                uid: server_uid,
                tools,
                limits,
                breaker,
                loops,
            });
        }
        match rejection {
            None if !raised.is_empty() => compilation.set_note(Kind::Server, &*object, prices::note(&raised)),
            rejection => compilation.set_verdict(Kind::Server, &*object, rejection),
        }
    }
    let mut others = unreadable::servers(compilation);
    for server in &mut others {
        floors.raise(&server.name, &server.uid, &mut server.tools);
    }
    servers.extend(others);
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers
}

/// What is compiled from the spec of a server.
struct Compiled {
    tools: Vec<Tool>,
    limits: ServerLimits,
    breaker: Breaker,
    loops: LoopSettings,
}

/// Compiles the catalogue and the limits as they are written.
fn from_spec(images: &AllowedImages, object: &MCPServer, has_currency: bool) -> Result<Compiled, Rejection> {
    if let Some(container) = object.spec.source.container()
        && let Err((reason, message)) = images.check(&container.image)
    {
        return Err(Rejection::new(reason, message));
    }
    check_number(object.spec.tools.iter().map(|tool| tool.arguments.len()))?;
    let mut tools: Vec<Tool> = Vec::new();
    for tool in &object.spec.tools {
        let (price, result_price) = price(tool)?;
        if tool.price.is_some() && !has_currency {
            return Err(Rejection::new(
                ConditionReason::CurrencyMissing,
                format!(
                    "tool {:?} has a price, but the tenant has no spendLimit, which sets the currency; ask the platform team for one or remove the price",
                    tool.name
                ),
            ));
        }
        let is_built_in = |name: &str| BuiltIn::from_name(name).is_some();
        let advice = if is_built_in(&tool.name) { "remove it" } else { "use another name for `as`" };
        if is_built_in(&tool.name) || is_built_in(tool.wire_name()) {
            return Err(Rejection::new(
                ConditionReason::InvalidSpec,
                format!("tool {:?} has the name of a built-in tool; {advice}", tool.name),
            ));
        }
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(Rejection::new(
                ConditionReason::InvalidSpec,
                format!("tool {:?} is declared twice; remove one of them", tool.name),
            ));
        }
        if let Some(other) = tools.iter().find(|other| other.wire_name() == tool.wire_name()) {
            return Err(Rejection::new(
                ConditionReason::InvalidSpec,
                format!(
                    "agents would see both tool {:?} and tool {:?} as {:?}; set another `as` on one of them",
                    other.name,
                    tool.name,
                    tool.wire_name()
                ),
            ));
        }
        let arguments = arguments(&tool.name, &tool.arguments)?;
        tools.push(Tool {
            name: tool.name.clone(),
            alias: tool.alias.clone().filter(|alias| *alias != tool.name),
            class: tool.class,
            arguments: arguments.into(),
            price,
            result_price,
            polls: tool.polls,
            shown: Shown::new(tool.title.clone(), tool.description.clone()).map(Arc::new),
            definition: definition(tool)?,
        });
    }
    let limits = &object.spec.limits;
    let limits = ServerLimits {
        timeout: limits.timeout.get(),
        max_request: limits.max_request_size,
        max_response: limits.max_response_size,
        max_concurrent_calls: limits.max_concurrent_calls,
    };
    let (breaker, loops) = (Breaker::from(&object.spec.breaker), LoopSettings::from(&object.spec.loops));
    Ok(Compiled { tools, limits, breaker, loops })
}

/// Compiles the price of a tool: the most that a call costs, and where its result states less.
fn price(tool: &mcp_fleet_crds::server::Tool) -> Result<(Micros, Option<Arc<ResultPrice>>), Rejection> {
    let Some(Price { per_call, from_result }) = &tool.price else { return Ok((Micros::ZERO, None)) };
    let invalid = |message: &str| {
        let message = format!("tool {:?}, price: {message}", tool.name);
        Rejection::new(ConditionReason::InvalidSpec, message)
    };
    match (per_call, from_result) {
        (Some(per_call), None) => Ok((*per_call, None)),
        (None, Some(stated)) => {
            let pointer = Pointer::parse(&stated.pointer);
            let pointer = pointer.ok_or_else(|| invalid("fromResult.pointer is not a JSON Pointer; correct it"))?;
            Ok((stated.max, Some(Arc::new(ResultPrice { pointer, minimum: Micros::ZERO }))))
        }
        _ => Err(invalid("set either perCall or fromResult")),
    }
}

/// Checks the number of arguments of all tools, which an admission policy refuses too.
pub(super) fn check_number(arguments: impl Iterator<Item = usize>) -> Result<(), Rejection> {
    let number: usize = arguments.sum();
    if number <= MAX_ALL_ARGUMENTS {
        return Ok(());
    }
    Err(Rejection::new(
        ConditionReason::InvalidSpec,
        format!(
            "the tools have {number} arguments, and an object may have at most {MAX_ALL_ARGUMENTS}; divide the tools among \
             several objects"
        ),
    ))
}

/// Compiles the digest of the tool's definition.
fn definition(tool: &mcp_fleet_crds::server::Tool) -> Result<Option<DefinitionDigest>, Rejection> {
    let digest = tool.definition_digest.as_deref().map(str::parse).transpose();
    digest.map_err(|error| {
        let message = format!("tool {:?}, definitionDigest: {error}", tool.name);
        Rejection::new(ConditionReason::InvalidSpec, message)
    })
}

/// Compiles the argument rules of one tool.
pub(super) fn arguments(tool: &str, list: &[mcp_fleet_crds::argument::Argument]) -> Result<Vec<Argument>, Rejection> {
    let mut arguments: Vec<Argument> = Vec::with_capacity(list.len());
    for argument in list {
        let argument = Argument::try_from(argument).map_err(|error| {
            Rejection::new(ConditionReason::InvalidSpec, format!("tool {tool:?}, argument {error}"))
        })?;
        if arguments.iter().any(|other| other.name == argument.name) {
            return Err(Rejection::new(
                ConditionReason::InvalidSpec,
                format!("tool {tool:?}, argument {:?} is declared twice; remove one of them", argument.name),
            ));
        }
        arguments.push(argument);
    }
    // Otherwise the gateway would refuse the tenant's whole policy because of one rule that it cannot enforce.
    mcp_fleet_policy::rules::validate_arguments(&arguments)
        .map_err(|error| Rejection::new(ConditionReason::InvalidSpec, format!("tool {tool:?}: {error}")))?;
    Ok(arguments)
}

/// Returns the catalogue, limits and settings that were in force, without the tools that the object no longer declares.
fn from_previous(compilation: &Compilation<'_>, object: &MCPServer) -> Option<Compiled> {
    let server_uid = uid(object);
    let server = compilation.before.servers.get(server_uid.as_str())?;
    let is_declared = |tool: &&Tool| object.spec.tools.iter().any(|other| other.name == tool.name);
    let tools = server.tools.iter().filter(is_declared).cloned().collect();
    Some(Compiled { tools, limits: server.limits, breaker: server.breaker, loops: server.loops })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
    use mcp_fleet_policy::model::{Breaker, SlowCalls};
    use serde_json::json;

    use super::{ConditionReason, Kind};
    use crate::policy::compile::tests::{compile, inputs, previous, published, reason};
    use crate::policy::compile::{Compiled, Previous, TenantInputs};

    #[test]
    fn a_tool_with_the_name_of_a_built_in_one_is_rejected() {
        let mut inputs = inputs();
        let previous = previous();
        Arc::make_mut(&mut inputs.servers[0]).spec.tools[0].name = "fleet_status".into();
        let compiled = compile(&inputs, Some(&previous));
        assert_eq!(reason(&compiled, Kind::Server, "files"), Some(ConditionReason::InvalidSpec));
        let tools = &compiled.policy.servers[0].tools;
        assert!(
            tools.iter().all(|tool| tool.name != "fleet_status")
                && tools.len() < previous.policy.servers[0].tools.len()
        );
    }

    #[test]
    fn names_for_agents_are_unique_and_what_was_in_force_stays() {
        let server_with = |tools: &serde_json::Value| {
            let mut inputs = inputs();
            Arc::make_mut(&mut inputs.servers[0]).spec.tools = serde_json::from_value(tools.clone()).unwrap();
            inputs.scopes.clear();
            inputs
        };
        let aliases = |compiled: &Compiled| -> Vec<Option<String>> {
            compiled.policy.servers[0].tools.iter().map(|tool| tool.alias.clone()).collect()
        };
        let good = server_with(&json!([
            {"name": "a b", "as": "b", "class": "Read"}, {"name": "b", "as": "c", "class": "Read"},
            {"name": "same", "as": "same", "class": "Read"}]));
        let compiled = compile(&good, None);
        assert_eq!(reason(&compiled, Kind::Server, "files"), None);
        let in_force = vec![Some("b".to_owned()), Some("c".to_owned()), None];
        assert_eq!(aliases(&compiled), in_force);
        let previous = published(&compiled);
        for (other, problem) in [
            (json!({"name": "d", "as": "b", "class": "Read"}), "tool \"a b\" and tool \"d\" as \"b\""),
            (json!({"name": "c", "class": "Read"}), "tool \"b\" and tool \"c\" as \"c\""),
            (json!({"name": "d", "as": "fleet_status", "class": "Read"}), "built-in tool"),
        ] {
            let tools = json!([
                {"name": "a b", "as": "b", "class": "Read"}, {"name": "b", "as": "c", "class": "Read"},
                {"name": "same", "class": "Write"}, other]);
            let compiled = compile(&server_with(&tools), Some(&previous));
            let verdict = &compiled.verdicts[&(Kind::Server, compiled.policy.servers[0].uid.clone())];
            assert_eq!((verdict.ok, verdict.reason), (false, ConditionReason::InvalidSpec), "{other}");
            assert!(verdict.message.contains(problem), "{}", verdict.message);
            assert_eq!(aliases(&compiled), in_force);
        }
    }

    #[test]
    fn settings_of_breakers_stay_in_force_while_the_server_is_rejected() {
        let breaker =
            |inputs: &TenantInputs, previous: &Previous| compile(inputs, Some(previous)).policy.servers[0].breaker;
        let mut inputs = inputs();
        let mut previous = previous();
        assert_eq!(breaker(&inputs, &previous), Breaker::DEFAULT);
        let spec = &mut Arc::make_mut(&mut inputs.servers[0]).spec;
        spec.breaker = serde_json::from_value(json!({"minimumCalls": 5, "slowCallDuration": "2s"})).unwrap();
        let slow_calls = Some(SlowCalls { percent: 100, duration: Duration::from_secs(2) });
        let changed = Breaker { minimum_calls: 5, slow_calls, ..Breaker::DEFAULT };
        assert_eq!(breaker(&inputs, &previous), changed);
        // With an image that the tenant does not allow.
        let spec = &mut Arc::make_mut(&mut inputs.servers[0]).spec;
        spec.source.stdio.as_mut().unwrap().image = "elsewhere.example/files:1".into();
        Arc::make_mut(&mut previous.policy).servers[0].breaker = Breaker { minimum_calls: 9, ..Breaker::DEFAULT };
        assert_eq!(breaker(&inputs, &previous).minimum_calls, 9);
    }

    #[test]
    fn a_catalogue_with_too_many_arguments_is_refused_and_the_one_before_stays() {
        let mut inputs = inputs();
        let previous = published(&compile(&inputs, None));
        let in_force = previous.policy.servers[0].tools.clone();
        let tool = |number: usize| {
            let argument = |number: usize| json!({"name": format!("a{number}"), "type": "Boolean"});
            let arguments: Vec<_> = (0..128).map(argument).collect();
            json!({"name": format!("t{number}"), "class": "Read", "arguments": arguments})
        };
        let mut set = |tools: usize| {
            let tools: Vec<_> = (0..tools).map(tool).collect();
            let spec = &mut Arc::make_mut(&mut inputs.servers[0]).spec;
            spec.tools.truncate(3);
            spec.tools.extend(serde_json::from_value::<Vec<mcp_fleet_crds::server::Tool>>(json!(tools)).unwrap());
            compile(&inputs, Some(&previous))
        };
        let compiled = set(33);
        let verdict = &compiled.verdicts[&(Kind::Server, compiled.policy.servers[0].uid.clone())];
        assert_eq!((verdict.ok, verdict.reason), (false, ConditionReason::InvalidSpec));
        assert!(verdict.message.contains("may have at most 4096"), "{}", verdict.message);
        assert_eq!(compiled.policy.servers[0].tools, in_force);
        assert_eq!(set(31).policy.servers[0].tools.len(), 3 + 31);
    }

    #[test]
    fn settings_of_loops_survive_a_restart_and_stay_in_force_while_the_server_is_rejected() {
        let mut inputs = inputs();
        let defaults = &compile(&inputs, None).policy.servers[0];
        assert_eq!((defaults.loops, defaults.tools[0].polls), (LoopSettings::DEFAULT, Polls::Limited));
        let spec = &mut Arc::make_mut(&mut inputs.servers[0]).spec;
        let loops = json!({"mode": "Monitor", "window": "1h", "identicalCalls": 5, "repeatedErrors": 6,
            "cycleRepeats": 7, "coolDown": "3m"});
        spec.loops = serde_json::from_value(loops).unwrap();
        spec.tools[0].polls = Polls::Tolerated;
        let compiled = compile(&inputs, None);
        let expected = LoopSettings {
            mode: Mode::Monitor,
            window: Duration::from_hours(1),
            identical_calls: 5,
            repeated_errors: 6,
            cycle_repeats: 7,
            cool_down: Duration::from_mins(3),
        };
        let in_force = |compiled: &Compiled| {
            let server = &compiled.policy.servers[0];
            (server.loops, server.tools.iter().map(|tool| tool.polls).collect::<Vec<_>>())
        };
        let expected = (expected, vec![Polls::Tolerated, Polls::Limited, Polls::Limited]);
        assert_eq!(in_force(&compiled), expected);
        // A new leader knows the snapshot and the objects.
        let mut previous = published(&compiled);
        previous.policy =
            mcp_fleet_control::decode(&mcp_fleet_control::encode(&previous.policy).bytes).unwrap().policy.into();
        assert_eq!(in_force(&compile(&inputs, Some(&previous))), expected);
        // With an image that the tenant does not allow, and settings that are not in force because of that.
        let spec = &mut Arc::make_mut(&mut inputs.servers[0]).spec;
        spec.source.stdio.as_mut().unwrap().image = "elsewhere.example/files:1".into();
        spec.loops = serde_json::from_value(json!({"mode": "Disabled"})).unwrap();
        assert_eq!(in_force(&compile(&inputs, Some(&previous))), expected);
    }
}
