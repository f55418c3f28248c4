//! The user's program as a pod runs it: rendered from a spec, or read back from what runs. Pure.

use std::str::FromStr as _;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mcp_fleet_core::server_config::{DEFAULT_VARIABLES, Source, http_options};
use mcp_fleet_crds::quantity::billionths;
use mcp_fleet_crds::server::{Container, EnvSource, Execution, Http, Idle, Medium, OnChange, Resources};
use mcp_fleet_policy::units::{Bytes, Window};
use serde_json::{Value, json};

use crate::controllers::manifests::resources::{DEFAULT_LIMITS, DEFAULT_REQUESTS};
use crate::rollout::ShimOptions;

/// Size of /tmp, unless the spec has another.
const TMP_SIZE: &str = "256Mi";
/// What the names of the volumes that a spec declares begin with.
const VOLUMES: [&str; 2] = ["files-", "scratch-"];
/// Options of the shim that a spec causes.
const OPTIONS: [&str; 9] = [
    "--files=",
    "--scratch=",
    "--executable-scratch=",
    "--start-timeout=",
    "--stop-grace=",
    "--http-port=",
    "--http-path=",
    "--http-transport=",
    IDLE_OPTION,
];
/// Option that says when a program is stopped because nobody calls it.
const IDLE_OPTION: &str = "--idle-stop=";
/// What options begin with that say where a program serves HTTP.
const HTTP_OPTION: &str = "--http-";
/// Seconds that a pod has for everything but `stopGrace`: the calls in flight may end, and the program is killed.
const SHUTDOWN_SECONDS: u64 = 28;
/// Annotation of pods: a digest of what their program is configured with.
const CONFIG_VERSION: &str = "mcp-fleet.dev/config-version";

/// A program as a pod runs it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub image: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Options of the shim, as in a container.
    pub options: Vec<String>,
    /// Variables, as in a container.
    env: Value,
    env_from: Value,
    working_dir: Option<String>,
    resources: Option<Resources>,
    /// Mounts and volumes that the spec declares, as in a pod.
    mounts: Vec<Value>,
    volumes: Vec<Value>,
    /// The volume of /tmp.
    tmp: Value,
    grace_seconds: u64,
    /// What happens when configuration changes.
    on_change: OnChange,
    config_version: Option<String>,
}

impl Program {
    /// Renders the program of a server, which serves MCP over HTTP if `http` says where, and is stopped as `idle` says.
    pub(crate) fn new(server: &str, container: &Container, http: Option<&Http>, idle: Option<&Idle>) -> Self {
        let mut options = Vec::new();
        let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
        for (index, files) in container.files.iter().enumerate() {
            let Some(source) = Source::of_files(files) else { continue };
            let name = format!("files-{index}");
            let mut secret = json!({"secretName": source.copy_name(server)});
            if files.is_optional() {
                secret["optional"] = json!(true);
            }
            if !files.items.is_empty() {
                secret["items"] = json!(files.items);
            }
            volumes.push(json!({"name": name, "secret": secret}));
            mounts.push(json!({"name": name, "mountPath": files.mount_path, "readOnly": true}));
            options.push(format!("--files={}", literal(&files.mount_path)));
        }
        let mut tmp = json!({"sizeLimit": TMP_SIZE});
        for (index, scratch) in container.scratch.iter().enumerate() {
            let is_tmp = scratch.mount_path == "/tmp";
            let mut directory = json!({"sizeLimit": scratch.size_limit});
            if scratch.medium == Medium::Memory {
                directory["medium"] = json!("Memory");
            }
            if is_tmp {
                tmp = directory;
            } else {
                let name = format!("scratch-{index}");
                volumes.push(json!({"name": name, "emptyDir": directory}));
                mounts.push(json!({"name": name, "mountPath": scratch.mount_path}));
            }
            match scratch.execute {
                Execution::Allow => options.push(format!("--executable-scratch={}", literal(&scratch.mount_path))),
                Execution::Deny if is_tmp => {}
                Execution::Deny => options.push(format!("--scratch={}", literal(&scratch.mount_path))),
            }
        }
        options.extend(seconds("--start-timeout", container.start_timeout, 60));
        options.extend(seconds("--stop-grace", container.stop_grace, 2));
        options.extend(http.into_iter().flat_map(http_options).map(|option| literal(&option)));
        options.extend(idle.map(|idle| format!("{IDLE_OPTION}{}", idle.stop_after.ceil_secs())));
        Self {
            image: container.image.clone(),
            command: container.command.iter().chain(&container.args).cloned().collect(),
            options,
            env: environment(server, container),
            env_from: env_from(server, container),
            working_dir: container.working_dir.clone(),
            resources: resources(container),
            mounts,
            volumes,
            tmp,
            grace_seconds: SHUTDOWN_SECONDS + container.stop_grace.ceil_secs(),
            on_change: container.on_change,
            config_version: None,
        }
    }

    /// Returns which options the shim needs to have.
    pub(crate) fn needed_options(&self) -> ShimOptions {
        let has = |start: &str| self.options.iter().any(|option| option.starts_with(start));
        if has(IDLE_OPTION) {
            ShimOptions::IDLE
        } else if has(HTTP_OPTION) {
            ShimOptions::HTTP
        } else if self.options.is_empty() {
            ShimOptions::FIRST
        } else {
            ShimOptions::CONFIGURATION
        }
    }

    /// Sets the digest of what the program is configured with. Unless changes are ignored, new pods are made when it changes.
    pub(crate) fn set_config_version(&mut self, version: Option<String>) {
        self.config_version = version.filter(|_| self.on_change == OnChange::Restart);
    }

    /// Reads the program back from the template of a workload and its tool container.
    pub(crate) fn read(template: &Value, tool: &Value) -> Option<Self> {
        let parts: Vec<String> =
            tool["command"].as_array()?.iter().map(|part| Some(part.as_str()?.to_owned())).collect::<Option<_>>()?;
        let end = parts.iter().position(|part| part == "--")?;
        let (options, command) = parts.split_at(end);
        let is_option = |part: &&String| OPTIONS.iter().any(|option| part.starts_with(option));
        let is_declared = |entry: &&Value| {
            let name = entry["name"].as_str().unwrap_or_default();
            VOLUMES.iter().any(|prefix| name.starts_with(prefix))
        };
        let declared = |list: &Value| list.as_array().into_iter().flatten().filter(is_declared).cloned().collect();
        let volumes = &template["spec"]["volumes"];
        let tmp = volumes.as_array()?.iter().find(|volume| volume["name"] == "tmp")?;
        Some(Self {
            image: tool["image"].as_str()?.to_owned(),
            command: command.iter().skip(1).map(|part| part.replace("$$", "$")).collect(),
            options: options.iter().filter(is_option).cloned().collect(),
            env: tool["env"].clone(),
            env_from: tool["envFrom"].clone(),
            working_dir: tool["workingDir"].as_str().map(str::to_owned),
            resources: serde_json::from_value(tool["resources"].clone()).ok(),
            mounts: declared(&tool["volumeMounts"]),
            volumes: declared(volumes),
            tmp: tmp["emptyDir"].clone(),
            grace_seconds: template["spec"]["terminationGracePeriodSeconds"].as_u64()?,
            on_change: OnChange::Restart,
            config_version: template["metadata"]["annotations"][CONFIG_VERSION].as_str().map(str::to_owned),
        })
    }

    /// Adds to a tool container what the program needs.
    pub(super) fn configure_container(&self, container: &mut Value) {
        container["image"] = json!(self.image);
        container["env"] = self.env.clone();
        if !self.env_from.is_null() {
            container["envFrom"] = self.env_from.clone();
        }
        if let Some(directory) = &self.working_dir {
            container["workingDir"] = json!(directory);
        }
        if let Some(resources) = &self.resources {
            container["resources"] = json!(resources);
        }
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.extend(self.mounts.iter().cloned());
        }
    }

    /// Adds to a pod what the program needs.
    pub(super) fn configure_pod(&self, pod: &mut Value) {
        pod["terminationGracePeriodSeconds"] = json!(self.grace_seconds);
        if let Some(volumes) = pod["volumes"].as_array_mut() {
            volumes.insert(1, json!({"name": "tmp", "emptyDir": self.tmp}));
            volumes.extend(self.volumes.iter().cloned());
        }
    }

    /// Returns the annotations of pods; none if there are none.
    pub(super) fn annotations(&self) -> Option<Value> {
        self.config_version.as_ref().map(|version| json!({CONFIG_VERSION: version}))
    }

    /// Returns the command of the program, as in a container.
    pub(super) fn literal_command(&self) -> impl Iterator<Item = String> {
        self.command.iter().map(|part| literal(part))
    }
}

/// Returns an option of the shim in seconds; none if it is the default.
fn seconds(option: &str, duration: Window, default: u64) -> Option<String> {
    let seconds = duration.ceil_secs();
    (seconds != default).then(|| format!("{option}={seconds}"))
}

/// Returns the resources of the container. Kubernetes counts what is in scratch as the container's own disk or memory, so without
/// a limit on that a container gets as much more as its scratch may hold.
pub(super) fn resources(container: &Container) -> Option<Resources> {
    let mut resources = container.resources.clone();
    for (medium, resource, limit, request) in [
        (Medium::Disk, "ephemeral-storage", DEFAULT_LIMITS.ephemeral_storage, DEFAULT_REQUESTS.ephemeral_storage),
        (Medium::Memory, "memory", DEFAULT_LIMITS.memory, DEFAULT_REQUESTS.memory),
    ] {
        let mut scratch = container.scratch.iter().filter(|scratch| scratch.medium == medium).peekable();
        if scratch.peek().is_none() || resources.as_ref().is_some_and(|it| it.limits.contains_key(resource)) {
            continue;
        }
        let default = Bytes::from_str(limit).map_or(0, Bytes::get);
        let all = scratch.fold(default, |sum, scratch| sum.saturating_add(scratch.size_limit.get()));
        let all = Quantity(all.to_string());
        let resources = resources.get_or_insert_default();
        let request = resources.requests.entry(resource.into()).or_insert_with(|| Quantity(request.into()));
        // A limit must not be less than the request.
        let limit = if billionths(&request.0) > billionths(&all.0) { request.clone() } else { all };
        resources.limits.insert(resource.into(), limit);
    }
    resources
}

/// Returns the variables. They do not depend on what sources contain, so that a change of that alone replaces no pods.
fn environment(server: &str, container: &Container) -> Value {
    let given = |name: &str| container.env.iter().any(|variable| variable.name == name);
    let defaults = DEFAULT_VARIABLES.into_iter().filter(|(name, _)| !given(name));
    let declared = container.env.iter().map(|variable| {
        let name = &variable.name;
        match variable.value_from.as_ref().and_then(Source::of_variable) {
            Some((source, key)) => {
                let mut reference = json!({"name": source.copy_name(server), "key": key});
                if variable.value_from.as_ref().is_some_and(EnvSource::is_optional) {
                    reference["optional"] = json!(true);
                }
                json!({"name": name, "valueFrom": {"secretKeyRef": reference}})
            }
            None => json!({"name": name, "value": literal(variable.value.as_deref().unwrap_or_default())}),
        }
    });
    defaults.map(|(name, value)| json!({"name": name, "value": value})).chain(declared).collect()
}

/// Returns the sources of variables; null if there are none.
fn env_from(server: &str, container: &Container) -> Value {
    let sources = container.env_from.iter().filter_map(|from| {
        let mut entry = json!({"secretRef": {"name": Source::of_env_from(from)?.copy_name(server)}});
        if !from.prefix.is_empty() {
            entry["prefix"] = json!(from.prefix);
        }
        Some(entry)
    });
    let sources: Vec<_> = sources.collect();
    if sources.is_empty() { Value::Null } else { json!(sources) }
}

/// Escapes dollars. Kubernetes expands `$(NAME)` in commands and values and reads `$$` as one dollar, but the user's text
/// is literal.
pub(super) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;
    use crate::controllers::manifests::settings::Settings;
    use crate::controllers::server::desired::desired;
    use crate::controllers::server::tests::{checked, server};
    use crate::controllers::server::validate::Server;

    fn container(change: &Value) -> Container {
        let mut container = json!({"image": "r.example/files:1", "command": ["sh", "$(HOME)"]});
        for (key, value) in change.as_object().unwrap() {
            container[key] = value.clone();
        }
        serde_json::from_value(container).unwrap()
    }

    /// Everything that a program can be configured with.
    fn everything() -> Container {
        container(&json!({
            "args": ["--verbose"],
            "env": [
                {"name": "LEVEL", "value": "$5"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}},
                {"name": "URL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "url"}}},
            ],
            "envFrom": [{"prefix": "A_", "secretRef": {"name": "api"}}, {"configMapRef": {"name": "settings"}}],
            "files": [
                {"mountPath": "/etc/files", "configMapRef": {"name": "settings"}},
                {"mountPath": "/etc/keys", "secretRef": {"name": "api"}, "items": [{"key": "token", "path": "t.txt"}]},
            ],
            "scratch": [
                {"mountPath": "/var/cache/files@1", "sizeLimit": "1Gi"},
                {"mountPath": "/home/files/.cache", "sizeLimit": "2Gi", "execute": "Allow"},
                {"mountPath": "/tmp", "sizeLimit": "3Gi"},
            ],
            "workingDir": "/srv",
            "startTimeout": "90500ms",
            "stopGrace": "10s",
            "resources": {"limits": {"memory": "1Gi"}},
        }))
    }

    fn with(program: Program) -> Server {
        Server { program: Box::new(program), ..checked() }
    }

    fn workload(server: &Server) -> Value {
        desired(server, &Settings::example()).workload.value
    }

    #[test]
    fn a_program_with_all_that_can_be_configured() {
        let mut program = Program::new("files", &everything(), None, None);
        program.set_config_version(Some("7-8".into()));
        let template = workload(&with(program))["spec"]["template"].clone();
        insta::assert_snapshot!("configured", serde_yaml_ng::to_string(&template).unwrap());
    }

    #[test]
    fn what_runs_is_read_back_as_it_was_rendered() {
        let http = json!({"image": "r.example/files:1", "command": ["files"], "port": 80, "path": "/mcp?$(A)"});
        let http: Http = serde_json::from_value(http).unwrap();
        let idle: Idle = serde_json::from_value(json!({"stopAfter": "10m"})).unwrap();
        let in_memory = container(&json!({"scratch": [
            {"mountPath": "/tmp", "sizeLimit": "1Gi", "medium": "Memory"},
            {"mountPath": "/var/cache/files", "sizeLimit": "1Mi", "medium": "Memory"},
        ]}));
        let optional = container(&json!({
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a", "optional": true}}}],
            "files": [{"mountPath": "/etc/files", "configMapRef": {"name": "settings", "optional": true}}],
        }));
        let usual = [everything(), container(&json!({})), server().spec.source.stdio.unwrap()];
        for container in usual.into_iter().chain([in_memory, optional]) {
            let mut program = Program::new("files", &container, Some(&http), Some(&idle));
            program.set_config_version(Some("7-8".into()));
            let rendered = workload(&with(program));
            // As the API server holds it, with the fields that it knows.
            let typed: StatefulSet = serde_json::from_value(rendered.clone()).unwrap();
            let live = serde_json::to_value(typed).unwrap();
            let template = &live["spec"]["template"];
            let read = Program::read(template, &template["spec"]["containers"][0]).unwrap();
            assert_eq!(workload(&with(read)), rendered);
        }
    }

    #[test]
    fn a_program_that_serves_http_says_where() {
        let mut http = json!({"image": "r.example/files:1", "command": ["files"], "port": 8080});
        for (change, expected) in [
            (json!({}), ["--http-port=8080", "--http-path=/mcp", "--http-transport=streamable-http"]),
            (
                json!({"path": "/a?$(B)", "transport": "SSE"}),
                ["--http-port=8080", "--http-path=/a?$$(B)", "--http-transport=sse"],
            ),
        ] {
            http.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let http: Http = serde_json::from_value(http.clone()).unwrap();
            let program = Program::new("files", &http.container, Some(&http), None);
            assert_eq!(program.options, expected);
            assert_eq!(program.needed_options(), ShimOptions::HTTP);
        }
    }

    #[test]
    fn there_is_room_for_scratch() {
        let amount = |resource: &str, change: Value| {
            let of = |amounts: &std::collections::BTreeMap<String, Quantity>| {
                amounts.get(resource).map(|amount| amount.0.clone())
            };
            resources(&container(&change)).map(|found| (of(&found.requests), of(&found.limits)))
        };
        let disk = |change: Value| amount("ephemeral-storage", change);
        let some = |request: &str, limit: &str| Some((Some(request.to_owned()), Some(limit.to_owned())));
        let scratch = json!([{"mountPath": "/a", "sizeLimit": "1Gi"}, {"mountPath": "/b", "sizeLimit": "1Mi"}]);
        assert_eq!(disk(json!({})), None);
        assert_eq!(disk(json!({"scratch": scratch})), some("16Mi", &(1281_u64 << 20).to_string()));
        let requests = json!({"requests": {"ephemeral-storage": "5Gi"}});
        assert_eq!(disk(json!({"scratch": scratch, "resources": requests})), some("5Gi", "5Gi"));
        let limits = json!({"limits": {"ephemeral-storage": "10Mi"}});
        assert_eq!(disk(json!({"scratch": scratch, "resources": limits})), Some((None, Some("10Mi".into()))));
        let memory = json!([{"mountPath": "/a", "sizeLimit": "1Gi", "medium": "Memory"}]);
        assert_eq!(amount("memory", json!({"scratch": memory})), some("64Mi", &(1280_u64 << 20).to_string()));
        assert_eq!(disk(json!({"scratch": memory})), Some((None, None)));
        let limits = json!({"limits": {"memory": "2Gi"}});
        assert_eq!(amount("memory", json!({"scratch": memory, "resources": limits})), Some((None, Some("2Gi".into()))));
    }

    #[test]
    fn only_what_a_program_uses_has_to_be_in_the_image() {
        let needed = |change: Value| Program::new("files", &container(&change), None, None).needed_options();
        assert_eq!(needed(json!({"env": [{"name": "A", "value": "a"}], "workingDir": "/srv"})), ShimOptions::FIRST);
        assert_eq!(needed(json!({"startTimeout": "5m"})), ShimOptions::CONFIGURATION);
        assert!(ShimOptions::FIRST < ShimOptions::CONFIGURATION && ShimOptions::CONFIGURATION < ShimOptions::HTTP);
    }

    #[test]
    fn a_program_that_is_stopped_when_nobody_calls_it_needs_a_shim_that_does_it() {
        let idle = |time: &str| Some(serde_json::from_value::<Idle>(json!({"stopAfter": time})).unwrap());
        let http = json!({"image": "r.example/files:1", "command": ["files"], "port": 80});
        let http: Http = serde_json::from_value(http).unwrap();
        for http in [None, Some(&http)] {
            for (time, expected) in [("1m", "--idle-stop=60"), ("90500ms", "--idle-stop=91")] {
                let program = Program::new("files", &container(&json!({})), http, idle(time).as_ref());
                assert_eq!(program.options.last().unwrap(), expected);
                assert_eq!(program.needed_options(), ShimOptions::IDLE);
                let command = &workload(&with(program))["spec"]["template"]["spec"]["containers"][0]["command"];
                assert!(command.as_array().unwrap().contains(&json!(expected)), "{command}");
            }
        }
        assert!(ShimOptions::HTTP < ShimOptions::IDLE);
    }

    #[test]
    fn changes_can_be_ignored() {
        for (on_change, annotated) in [("Restart", true), ("Ignore", false)] {
            let mut program = Program::new("files", &container(&json!({"onChange": on_change})), None, None);
            program.set_config_version(Some("7".into()));
            assert_eq!(program.annotations().is_some(), annotated);
        }
    }

    #[test]
    fn dollars_stay_dollars() {
        let program = Program::new("files", &everything(), None, None);
        assert_eq!(program.literal_command().collect::<Vec<_>>(), ["sh", "$$(HOME)", "--verbose"]);
        assert_eq!(program.env[3], json!({"name": "LEVEL", "value": "$$5"}));
    }

    #[test]
    fn a_server_may_set_the_defaults_itself() {
        let own = container(&json!({"env": [{"name": "PATH", "value": "/opt/bin"}]}));
        let program = Program::new("files", &own, None, None);
        let names: Vec<_> = program.env.as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
        assert_eq!(names, ["HOME", "TMPDIR", "PATH"]);
    }
}
