//! Secrets and `ConfigMap`s among the manifests, and what servers are configured with from them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use mcp_fleet_core::server_config::{
    Found, Problem, References, Source, check_count, check_environment, of_config_map, of_secret,
};
use mcp_fleet_crds::server::{Container, EnvSource};
use serde_json::Value;

use super::enclosure::Files;

/// The Secrets and `ConfigMap`s, by namespace and name. They are kept in no file but the plan of an enclosure, which is deleted when
/// it is read.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    secrets: BTreeMap<(String, String), Secret>,
    config_maps: BTreeMap<(String, String), ConfigMap>,
}

/// Values are nobody's business.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.secrets.keys().chain(self.config_maps.keys())).finish()
    }
}

/// What a program is configured with.
pub(crate) struct Configuration {
    variables: Vec<(String, String)>,
    pub(crate) files: Vec<Files>,
}

impl Configuration {
    /// Sets the variables, over those that are there.
    pub(crate) fn add_variables(&mut self, environment: &mut BTreeMap<String, String>) {
        environment.extend(self.variables.drain(..));
    }
}

impl Sources {
    /// Adds an object. Fails if it cannot be read, without a word of what is in it.
    pub(crate) fn insert(&mut self, kind: &str, namespace: &str, name: &str, object: &Value) -> Result<(), String> {
        let key = (namespace.to_owned(), name.to_owned());
        let is_new = if kind == "Secret" {
            let secret = serde_json::from_value(object.clone());
            let secret = secret.map_err(|_| "data must have Base64 values, and stringData text".to_owned())?;
            self.secrets.insert(key, secret).is_none()
        } else {
            let map = serde_json::from_value(object.clone());
            let map = map.map_err(|_| "data must have text, and binaryData Base64 values".to_owned())?;
            self.config_maps.insert(key, map).is_none()
        };
        if is_new { Ok(()) } else { Err(format!("{kind} {namespace}/{name} is declared twice")) }
    }

    /// Returns what a server's program is configured with.
    pub(crate) fn read(&self, namespace: &str, server: &str, container: &Container) -> anyhow::Result<Configuration> {
        let references = References::of(container);
        let problem = |Problem { message, .. }: Problem| anyhow!(message);
        check_count(&references).map_err(problem)?;
        let mut found = Found::default();
        for (source, keys) in &references.0 {
            let key = |name: &String| (namespace.to_owned(), name.clone());
            let data = match source {
                Source::Secret(name) | Source::PullSecret(name) => {
                    of_secret(source, self.secrets.get(&key(name)).cloned(), server, keys)
                }
                Source::ConfigMap(name) => of_config_map(name, self.config_maps.get(&key(name)).cloned(), keys),
            };
            found.insert(source.clone(), data.map_err(problem)?).map_err(problem)?;
        }
        check_environment(container, &found).map_err(problem)?;
        Ok(Configuration { variables: variables(container, &found)?, files: files(container, &found)? })
    }
}

fn text(value: &ByteString) -> anyhow::Result<String> {
    // It was checked that it is text.
    String::from_utf8(value.0.clone()).map_err(|_| anyhow!("a variable is not text"))
}

/// Returns the variables in the order in which they are set.
fn variables(container: &Container, found: &Found) -> anyhow::Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for from in &container.env_from {
        let data = Source::of_env_from(from).and_then(|source| found.0.get(&source));
        for (key, value) in data.into_iter().flatten() {
            variables.push((format!("{}{key}", from.prefix), text(value)?));
        }
    }
    for variable in &container.env {
        let value = match variable.value_from.as_ref().and_then(Source::of_variable) {
            Some((source, key)) => match found.0.get(&source).and_then(|data| data.get(key)) {
                Some(value) => text(value)?,
                None if variable.value_from.as_ref().is_some_and(EnvSource::is_optional) => continue,
                None => bail!("the {source} has no key {key}"),
            },
            None => variable.value.clone().unwrap_or_default(),
        };
        variables.push((variable.name.clone(), value));
    }
    Ok(variables)
}

fn files(container: &Container, found: &Found) -> anyhow::Result<Vec<Files>> {
    let of = |declared: &mcp_fleet_crds::server::Files| {
        let data = Source::of_files(declared).and_then(|source| found.0.get(&source));
        let data = data.ok_or_else(|| anyhow!("files without a source"))?;
        let named: BTreeMap<String, Vec<u8>> = if declared.items.is_empty() {
            data.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect()
        } else {
            let items = declared.items.iter();
            items.filter_map(|item| Some((item.path.clone(), data.get(&item.key)?.0.clone()))).collect()
        };
        Ok(Files { path: PathBuf::from(&declared.mount_path), named })
    };
    container.files.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn sources() -> Sources {
        let mut sources = Sources::default();
        let secret = json!({"metadata": {"labels": {"mcp-fleet.dev/server.files": ""}}, "data": {"A": "YQ=="}, "stringData": {"B": "b"}});
        sources.insert("Secret", "acme", "api", &secret).unwrap();
        sources.insert("ConfigMap", "acme", "settings", &json!({"data": {"a.toml": "a = 1"}})).unwrap();
        sources
    }

    fn read(server: &str, change: &Value) -> anyhow::Result<Configuration> {
        let mut container = json!({"image": "r.example/files:1", "command": ["x"]});
        container.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        sources().read("acme", server, &serde_json::from_value(container).unwrap())
    }

    #[test]
    fn later_variables_count() {
        let change = json!({
            "envFrom": [{"secretRef": {"name": "api"}}, {"prefix": "P_", "secretRef": {"name": "api"}}],
            "env": [{"name": "A", "value": "own"}, {"name": "C", "valueFrom": {"secretKeyRef": {"name": "api", "key": "B"}}}],
        });
        let mut environment = BTreeMap::from([("B".to_owned(), "default".to_owned())]);
        read("files", &change).unwrap().add_variables(&mut environment);
        let seen: Vec<_> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(seen, ["A=own", "B=b", "C=b", "P_A=a", "P_B=b"]);
        let refused = read("mail", &change).err().unwrap().to_string();
        assert!(refused.contains("mcp-fleet.dev/server.mail"), "{refused}");
    }

    #[test]
    fn what_is_optional_may_be_missing() {
        let variable = |name: &str, key: &str| json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": true}}}]});
        for (change, expected) in [
            (variable("api", "A"), vec!["A"]),
            (variable("api", "none"), vec![]),
            (variable("none", "A"), vec![]),
            (json!({"envFrom": [{"secretRef": {"name": "none", "optional": true}}]}), vec![]),
        ] {
            let mut environment = BTreeMap::new();
            read("files", &change).unwrap().add_variables(&mut environment);
            assert_eq!(environment.into_keys().collect::<Vec<_>>(), expected, "{change}");
        }
        let files = json!({"files": [{"mountPath": "/etc/x", "configMapRef": {"name": "none", "optional": true}}]});
        assert!(read("files", &files).unwrap().files[0].named.is_empty());
    }

    #[test]
    fn keys_are_files() {
        let files = |items: Value| {
            let change =
                json!({"files": [{"mountPath": "/etc/x", "configMapRef": {"name": "settings"}, "items": items}]});
            read("files", &change).map(|it| it.files[0].named.keys().cloned().collect::<Vec<_>>())
        };
        assert_eq!(files(json!([])).unwrap(), ["a.toml"]);
        assert_eq!(files(json!([{"key": "a.toml", "path": "b"}])).unwrap(), ["b"]);
        assert!(files(json!([{"key": "none", "path": "b"}])).unwrap_err().to_string().contains("no key none"));
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        let mut sources = sources();
        let refused = sources.insert("Secret", "acme", "bad", &json!({"data": {"key": "not base64!"}})).unwrap_err();
        assert!(!refused.contains("not base64"), "{refused}");
        assert!(sources.insert("Secret", "acme", "api", &json!({})).unwrap_err().contains("twice"));
        assert!(!format!("{sources:?}").contains('='), "{sources:?}");
    }
}
