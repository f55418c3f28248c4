//! Checks of what was read.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcp_fleet_crds::condition::ConditionReason as Reason;
use mcp_fleet_crds::names::server_secret_label;
use mcp_fleet_crds::server::Container;

use super::references::{Keys, Presence, References, Source};
use crate::labels;

/// Most Secrets and `ConfigMap`s of one server. Each is read about once a minute.
const MAX_SOURCES: usize = 16;
/// Most bytes of all that one server uses.
const MAX_BYTES: usize = 1 << 20;
/// Longest variable, with its name: Linux starts no program with a longer one (execve(2), `MAX_ARG_STRLEN`).
const MAX_VARIABLE: usize = (128 << 10) - 2;
/// Types of Secrets that Kubernetes itself fills or uses.
const OF_THE_CLUSTER: [&str; 2] = ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"];
/// Type of a Secret with credentials for registries.
pub const PULL_SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";
/// Longest name of a variable that a spec names.
const MAX_NAME: usize = 128;

/// Why a program cannot be configured as its spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the conditions.
    pub reason: Reason,
    /// What is wrong and what to do. Contains no value.
    pub message: String,
}

/// What a program needs of each source.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Found(pub BTreeMap<Source, BTreeMap<String, ByteString>>);

/// Values are nobody's business.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Found {
    /// Adds what is needed of a source, unless it is too much.
    pub fn insert(&mut self, source: Source, data: BTreeMap<String, ByteString>) -> Result<(), Problem> {
        let size = |data: &BTreeMap<String, ByteString>| {
            data.iter().map(|(key, value)| key.len() + value.0.len()).sum::<usize>()
        };
        let before: usize = self.0.values().map(size).sum();
        if before + size(&data) > MAX_BYTES {
            let message =
                "the Secrets and ConfigMaps of the server have more than 1 MiB that it uses; name the keys that its program \
                 needs"
                    .to_owned();
            return Err(Problem { reason: Reason::ConfigRefused, message });
        }
        self.0.insert(source, data);
        Ok(())
    }
}

/// Checks that Linux starts a program with all of its variables: there is a limit on all of them together, which no machine has below
/// 1.5 MiB (execve(2)).
pub fn check_environment(container: &Container, found: &Found) -> Result<(), Problem> {
    let value = |source: &Source, key: &str| Some(found.0.get(source)?.get(key)?.0.len());
    let named = container.env.iter().map(|variable| {
        let from = variable.value_from.as_ref().and_then(Source::of_variable);
        let length = from.and_then(|(source, key)| value(&source, key));
        variable.name.len() + length.or(variable.value.as_ref().map(String::len)).unwrap_or(0)
    });
    let all = container.env_from.iter().map(|from| {
        let data = Source::of_env_from(from).and_then(|source| found.0.get(&source));
        let variables = data.into_iter().flatten();
        variables.map(|(key, value)| from.prefix.len() + key.len() + value.0.len() + 2).sum()
    });
    let arguments = container.command.iter().chain(&container.args).map(|part| part.len() + 1);
    if named.chain(all).chain(arguments).sum::<usize>() <= MAX_BYTES {
        return Ok(());
    }
    let message =
        "the variables and arguments of the source have more than 1 MiB together; use files instead".to_owned();
    Err(Problem { reason: Reason::ConfigRefused, message })
}

/// Checks that a program does not refer to more than is read. The schema bounds the number of pull secrets.
pub fn check_count(references: &References) -> Result<(), Problem> {
    let count = references.0.keys().filter(|source| !matches!(source, Source::PullSecret(_))).count();
    if count <= MAX_SOURCES {
        return Ok(());
    }
    let message = format!(
        "the source refers to {count} different Secrets and ConfigMaps, and at most {MAX_SOURCES} are read; put several \
         keys into one"
    );
    Err(Problem { reason: Reason::InvalidSpec, message })
}

/// Returns what is needed of a Secret of the server's namespace, if the server may have it; nothing of one that does not exist and
/// need not. `source` is a Secret or a pull secret.
pub fn of_secret(
    source: &Source,
    secret: Option<Secret>,
    server: &str,
    keys: &Keys,
) -> Result<BTreeMap<String, ByteString>, Problem> {
    let Some(Secret { metadata: ObjectMeta { labels, .. }, data, string_data, type_, .. }) = secret else {
        return missing(source, keys);
    };
    let labels = labels.unwrap_or_default();
    if labels::are_ours(&labels) {
        return Err(refused(source, "MCP Fleet made it for something else; name another one"));
    }
    // Whoever may create a Secret of these types gets what the cluster puts into it.
    if type_.as_deref().is_some_and(|kind| OF_THE_CLUSTER.contains(&kind)) {
        return Err(refused(source, "it is a credential of the cluster itself; name a Secret of another type"));
    }
    if matches!(source, Source::PullSecret(_)) && type_.as_deref() != Some(PULL_SECRET_TYPE) {
        let why = format!("its type is not {PULL_SECRET_TYPE}; create it with `kubectl create secret docker-registry`");
        return Err(refused(source, &why));
    }
    let label = server_secret_label(server);
    if !keys.is_granted && !labels.contains_key(&label) {
        let why = format!("it does not say that this server may have it; give it the label {label}=\"\"");
        return Err(refused(source, &why));
    }
    // An API server has merged these.
    let text = string_data.unwrap_or_default().into_iter().map(|(key, text)| (key, ByteString(text.into_bytes())));
    needed(source, keys, data.unwrap_or_default().into_iter().chain(text).collect())
}

/// Returns what is needed of a `ConfigMap` of the server's namespace; nothing of one that does not exist and need not.
pub fn of_config_map(
    name: &str,
    object: Option<ConfigMap>,
    keys: &Keys,
) -> Result<BTreeMap<String, ByteString>, Problem> {
    let source = Source::ConfigMap(name.to_owned());
    let Some(ConfigMap { data, binary_data, .. }) = object else { return missing(&source, keys) };
    let text = data.unwrap_or_default().into_iter().map(|(key, text)| (key, ByteString(text.into_bytes())));
    needed(&source, keys, text.chain(binary_data.unwrap_or_default()).collect())
}

fn refused(source: &Source, why: &str) -> Problem {
    Problem { reason: Reason::ConfigRefused, message: format!("the {source} is not used: {why}") }
}

fn missing(source: &Source, keys: &Keys) -> Result<BTreeMap<String, ByteString>, Problem> {
    if keys.presence == Presence::Optional {
        return Ok(BTreeMap::new());
    }
    let message = format!("the {source} does not exist in the server's namespace; create it there");
    Err(Problem { reason: Reason::ConfigNotFound, message })
}

/// Returns the part of a source that is needed. Never says what a value is.
fn needed(
    source: &Source,
    keys: &Keys,
    mut all: BTreeMap<String, ByteString>,
) -> Result<BTreeMap<String, ByteString>, Problem> {
    if let Some(key) = keys.required.iter().find(|key| !all.contains_key(*key)) {
        let message = format!("the {source} has no key {key}; add it, or refer to another one");
        return Err(Problem { reason: Reason::ConfigNotFound, message });
    }
    for (key, value) in &all {
        let mut lengths = keys.prefixes.iter().map(|prefix| prefix.len() + key.len());
        let is_variable = keys.variables.contains(key) || lengths.len() > 0;
        if let Some(prefix) = keys.prefixes.iter().find(|prefix| !is_name(&format!("{prefix}{key}"))) {
            let why = format!(
                "its key {key} cannot be a variable, because {prefix}{key} has other characters than letters, digits and \
                 underscores; name the keys under env instead of envFrom"
            );
            return Err(refused(source, &why));
        }
        let named = if keys.variables.contains(key) { MAX_NAME } else { 0 };
        let longest = lengths.by_ref().max().unwrap_or(0).max(named);
        if is_variable && (value.0.contains(&0) || std::str::from_utf8(&value.0).is_err()) {
            let why = format!("the value of its key {key} is not UTF-8 text without U+0000; use it as a file");
            return Err(refused(source, &why));
        }
        if is_variable && longest + value.0.len() > MAX_VARIABLE {
            let why = format!("the value of its key {key} is too long for a variable; use it as a file");
            return Err(refused(source, &why));
        }
    }
    all.retain(|key, _| keys.uses(key));
    Ok(all)
}

/// Whether a variable can have a name.
fn is_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn keys(change: impl FnOnce(&mut Keys)) -> Keys {
        let mut keys = Keys::default();
        change(&mut keys);
        keys
    }

    fn read(keys: &Keys, data: &[(&str, &[u8])]) -> Result<Vec<String>, (Reason, String)> {
        let all = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))).collect();
        let found = needed(&Source::Secret("api".into()), keys, all);
        found.map(|it| it.into_keys().collect()).map_err(|it| (it.reason, it.message))
    }

    #[test]
    fn only_what_is_named_is_copied() {
        let data: [(&str, &[u8]); 3] = [("token", b"t"), ("ca.pem", b"c"), ("other", b"o")];
        let mut named = keys(|it| {
            it.variables.insert("token".into());
            it.files.insert("ca.pem".into());
            it.required = ["token".to_owned(), "ca.pem".to_owned()].into();
        });
        assert_eq!(read(&named, &data).unwrap(), ["ca.pem", "token"]);
        assert_eq!(read(&keys(|it| it.all = true), &data).unwrap().len(), 3);
        let (reason, message) = read(&named, &data[1..]).unwrap_err();
        assert_eq!((reason, message.contains("no key token")), (Reason::ConfigNotFound, true), "{message}");
        named.required.remove("token");
        assert_eq!(read(&named, &data[1..]).unwrap(), ["ca.pem"]);
    }

    /// The references of a program with a variable and files from the Secret `api`.
    fn referring(variable_is_optional: bool, files_are_optional: bool) -> Keys {
        let container = json!({
            "image": "i",
            "command": ["x"],
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "api", "key": "a", "optional": variable_is_optional}}}],
            "files": [{"mountPath": "/etc/x", "secretRef": {"name": "api", "optional": files_are_optional}, "items": [{"key": "b", "path": "b"}]}],
        });
        let container: Container = serde_json::from_value(container).unwrap();
        References::of(&container).0.remove(&Source::Secret("api".into())).unwrap()
    }

    #[test]
    fn what_is_optional_may_be_missing_but_not_refused() {
        let (api, none) = (Source::Secret("api".into()), BTreeMap::new());
        let read = |secret: Option<&serde_json::Value>, keys: &Keys| {
            let secret = secret.map(|secret| serde_json::from_value(secret.clone()).unwrap());
            of_secret(&api, secret, "files", keys).map_err(|problem| (problem.reason, problem.message))
        };
        let all = referring(true, true);
        assert_eq!(read(None, &all), Ok(none.clone()));
        assert_eq!(of_config_map("api", None, &all), Ok(none.clone()));
        let empty = json!({"metadata": {"labels": {"mcp-fleet.dev/server.files": ""}}});
        assert_eq!(read(Some(&empty), &all), Ok(none));
        let unlabelled = json!({"data": {"a": "dA=="}});
        assert_eq!(read(Some(&unlabelled), &all).unwrap_err().0, Reason::ConfigRefused);
        for (keys, missing) in [(referring(false, true), "no key a"), (referring(true, false), "no key b")] {
            assert_eq!(read(None, &keys).unwrap_err().0, Reason::ConfigNotFound, "one reference is not optional");
            let (reason, message) = read(Some(&empty), &keys).unwrap_err();
            assert_eq!((reason, message.contains(missing)), (Reason::ConfigNotFound, true), "{message}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_a_variable_is_refused_without_being_shown() {
        let token = keys(|it| it.variables = ["token".to_owned()].into());
        let long = vec![b'a'; 128 << 10];
        for value in [&b"secret\0"[..], b"secret\xff", &long] {
            let (reason, message) = read(&token, &[("token", value)]).unwrap_err();
            assert_eq!(reason, Reason::ConfigRefused);
            assert!(message.contains("use it as a file") && !message.contains("secret\u{0}") && message.len() < 200);
            let file = keys(|it| it.files = ["token".to_owned()].into());
            assert!(read(&file, &[("token", value)]).is_ok());
        }
        let all = |prefix: &str| {
            keys(|it| {
                it.all = true;
                it.prefixes.insert(prefix.into());
            })
        };
        assert!(read(&all(""), &[("ca.pem", b"c")]).unwrap_err().1.contains("envFrom"));
        assert!(read(&all(""), &[("1st", b"c")]).is_err());
        assert!(read(&all("THE_"), &[("1st", b"c")]).is_ok());
    }

    #[test]
    fn all_together_is_not_too_much() {
        let mut found = Found::default();
        let large = || BTreeMap::from([("a".to_owned(), ByteString(vec![0; 600 << 10]))]);
        found.insert(Source::Secret("a".into()), large()).unwrap();
        let refused = found.insert(Source::ConfigMap("a".into()), large()).unwrap_err();
        assert_eq!((refused.reason, found.0.len()), (Reason::ConfigRefused, 1));
    }

    #[test]
    fn variables_that_no_program_can_have_are_refused() {
        let data = BTreeMap::from([("A".to_owned(), ByteString(vec![b'a'; 100 << 10]))]);
        let found = Found([(Source::ConfigMap("large".into()), data)].into());
        let check = |count: usize| {
            let from: Vec<_> = (0..count)
                .map(|number| json!({"prefix": format!("P{number}"), "configMapRef": {"name": "large"}}))
                .collect();
            let stdio = json!({"image": "i", "command": ["x"], "envFrom": from});
            check_environment(&serde_json::from_value(stdio).unwrap(), &found)
        };
        assert_eq!(check(8), Ok(()));
        assert_eq!(check(11).unwrap_err().reason, Reason::ConfigRefused);
    }

    #[test]
    fn a_secret_belongs_to_the_servers_that_it_names() {
        let secret = |labels: serde_json::Value| -> Secret {
            serde_json::from_value(json!({"metadata": {"name": "api", "labels": labels}, "data": {"token": "dA=="}}))
                .unwrap()
        };
        let (all, api) = (keys(|it| it.all = true), Source::Secret("api".into()));
        let both = json!({"mcp-fleet.dev/server.files": "", "mcp-fleet.dev/server.mail": ""});
        for server in ["files", "mail"] {
            assert_eq!(of_secret(&api, Some(secret(both.clone())), server, &all).unwrap()["token"].0, b"t");
        }
        let message = of_secret(&api, Some(secret(both)), "web", &all).unwrap_err().message;
        assert!(message.contains(r#"mcp-fleet.dev/server.web="""#), "{message}");
        let mut token = secret(json!({"mcp-fleet.dev/server.files": ""}));
        token.type_ = Some("kubernetes.io/service-account-token".into());
        assert!(of_secret(&api, Some(token), "files", &all).unwrap_err().message.contains("of the cluster itself"));
        let mut ours = labels::common("credential");
        ours.insert("mcp-fleet.dev/server.files".into(), String::new());
        assert!(
            of_secret(&api, Some(secret(json!(ours))), "files", &all)
                .unwrap_err()
                .message
                .contains("MCP Fleet made it")
        );
    }
}
