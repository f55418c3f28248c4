//! How the program of a server is run, in a pod and by `mcp-fleet try`. Pure.

use std::path::Path;

use mcp_fleet_crds::condition::ConditionReason as Reason;
use mcp_fleet_crds::quantity::billionths;
use mcp_fleet_crds::server::{Container, EnvSource, EnvVar, Http, HttpTransport, Medium};

use super::sources::Problem;

/// Variables that every program has unless its spec has others, with their values: the search path is that of Debian and Alpine.
pub const DEFAULT_VARIABLES: [(&str, &str); 3] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/tmp"), ("TMPDIR", "/tmp")];

/// Returns the options of the shim for a program that serves MCP over HTTP.
pub fn http_options(http: &Http) -> [String; 3] {
    let transport = match http.transport {
        HttpTransport::StreamableHTTP => "streamable-http",
        HttpTransport::SSE => "sse",
    };
    [
        format!("--http-port={}", http.port),
        format!("--http-path={}", http.path),
        format!("--http-transport={transport}"),
    ]
}

/// Checks what the schema of a program cannot say. `workspace` is where that is mounted.
pub fn check_program(workspace: Option<&str>, container: &Container) -> Result<(), Problem> {
    check_directories(workspace, container)?;
    check_memory(container)?;
    check_defaults(container)
}

/// Checks that no directory of a program is in another one.
fn check_directories(workspace: Option<&str>, container: &Container) -> Result<(), Problem> {
    let files = container.files.iter().map(|files| &*files.mount_path);
    let scratch = container.scratch.iter().map(|scratch| &*scratch.mount_path);
    let all: Vec<&Path> = workspace.into_iter().chain(files).chain(scratch).map(Path::new).collect();
    for (index, path) in all.iter().enumerate() {
        let overlaps = |other: &&&Path| path.starts_with(other) || other.starts_with(path);
        if let Some(other) = all.iter().take(index).find(overlaps) {
            let message = format!(
                "the directories {} and {} of the program overlap; choose paths of which none is in another one",
                other.display(),
                path.display()
            );
            return Err(Problem { reason: Reason::InvalidSpec, message });
        }
    }
    Ok(())
}

/// Checks that a program has memory beside what its directories in memory may hold. These stay full when it is started again in the same
/// pod, so without a rest it would be killed for ever.
fn check_memory(container: &Container) -> Result<(), Problem> {
    let in_memory = container.scratch.iter().filter(|scratch| scratch.medium == Medium::Memory);
    let all = in_memory.fold(0_u64, |sum, scratch| sum.saturating_add(scratch.size_limit.get()));
    let limit = container.resources.as_ref().and_then(|resources| resources.limits.get("memory"));
    let Some(limit) = limit.filter(|_| all > 0) else { return Ok(()) };
    if billionths(&limit.0) > billionths(&all.to_string()) {
        return Ok(());
    }
    let message = format!(
        "resources.limits.memory is {}, and scratch in memory may hold {all} bytes of that; raise the limit, so that the program has \
         memory of its own",
        limit.0
    );
    Err(Problem { reason: Reason::InvalidSpec, message })
}

/// Checks that no variable is optional that has a default: without a value there would be neither.
fn check_defaults(container: &Container) -> Result<(), Problem> {
    let is_default = |name: &str| DEFAULT_VARIABLES.iter().any(|(default, _)| *default == name);
    let is_optional = |variable: &&EnvVar| {
        is_default(&variable.name) && variable.value_from.as_ref().is_some_and(EnvSource::is_optional)
    };
    let Some(variable) = container.env.iter().find(is_optional) else { return Ok(()) };
    let name = &variable.name;
    let message =
        format!("the variable {name} has a default, so it cannot be optional; remove optional, or the variable");
    Err(Problem { reason: Reason::InvalidSpec, message })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_program_has_memory_beside_its_directories_in_memory() {
        let check = |limit: &str| {
            let scratch = |path: &str, medium: &str| json!({"mountPath": path, "sizeLimit": "512Mi", "medium": medium});
            let container = json!({
                "image": "i", "command": ["x"], "resources": {"limits": {"memory": limit}},
                "scratch": [scratch("/a", "Memory"), scratch("/b", "Disk"), scratch("/tmp", "Memory")],
            });
            check_memory(&serde_json::from_value(container).unwrap()).map_err(|problem| problem.reason)
        };
        assert_eq!(check("1025Mi"), Ok(()));
        for limit in ["1Gi", "1G", "512Mi"] {
            assert_eq!(check(limit), Err(Reason::InvalidSpec), "{limit}");
        }
        assert_eq!(check_memory(&serde_json::from_value(json!({"image": "i", "command": ["x"]})).unwrap()), Ok(()));
    }

    #[test]
    fn a_variable_with_a_default_is_not_optional() {
        let check = |name: &str, optional: bool| {
            let from = json!({"configMapKeyRef": {"name": "settings", "key": "a", "optional": optional}});
            let container = json!({"image": "i", "command": ["x"], "env": [{"name": name, "valueFrom": from}]});
            check_defaults(&serde_json::from_value(container).unwrap()).map_err(|problem| problem.message)
        };
        assert!(check("HOME", true).unwrap_err().contains("variable HOME has a default"));
        assert_eq!((check("HOME", false), check("OTHER", true)), (Ok(()), Ok(())));
    }
}
