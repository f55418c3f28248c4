//! What a spec refers to. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mcp_fleet_crds::pod::PullSecretRef;
use mcp_fleet_crds::server::{Container, EnvFrom, EnvSource, Files, KeyRef, SourceRef};

/// Key of a Secret with credentials for registries.
const PULL_SECRET_KEY: &str = ".dockerconfigjson";

/// A Secret or `ConfigMap` in the tenant's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Secret(String),
    ConfigMap(String),
    /// A Secret with which the image is pulled. The program sees nothing of it.
    PullSecret(String),
}

impl Source {
    /// Returns the source that is named; none if neither or both are, which admission refuses.
    fn named(secret: Option<&SourceRef>, config_map: Option<&SourceRef>) -> Option<Self> {
        match (secret, config_map) {
            (Some(secret), None) => Some(Self::Secret(secret.name.clone())),
            (None, Some(config_map)) => Some(Self::ConfigMap(config_map.name.clone())),
            _ => None,
        }
    }

    /// Returns the source and the key that a variable is from.
    pub fn of_variable(from: &EnvSource) -> Option<(Self, &str)> {
        match (&from.secret_key_ref, &from.config_map_key_ref) {
            (Some(KeyRef { name, key, .. }), None) => Some((Self::Secret(name.clone()), key)),
            (None, Some(KeyRef { name, key, .. })) => Some((Self::ConfigMap(name.clone()), key)),
            _ => None,
        }
    }

    pub fn of_env_from(from: &EnvFrom) -> Option<Self> {
        Self::named(from.secret_ref.as_ref(), from.config_map_ref.as_ref())
    }

    pub fn of_files(files: &Files) -> Option<Self> {
        Self::named(files.secret_ref.as_ref(), files.config_map_ref.as_ref())
    }

    /// Returns the name of the copy for a server. Names of servers have no dots, so no two copies have the same name.
    pub fn copy_name(&self, server: &str) -> String {
        match self {
            Self::Secret(name) => format!("mcp-{server}.secret.{name}"),
            Self::ConfigMap(name) => format!("mcp-{server}.configmap.{name}"),
            Self::PullSecret(name) => format!("mcp-{server}.pull.{name}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) | Self::PullSecret(name) => write!(f, "Secret {name}"),
            Self::ConfigMap(name) => write!(f, "ConfigMap {name}"),
        }
    }
}

/// Whether something must exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// A program can do without it.
    #[default]
    Optional,
    /// It must.
    Required,
}

/// The keys of one source that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Whether all of them are, whatever they are called.
    pub all: bool,
    /// Those that are values of variables.
    pub variables: BTreeSet<String>,
    /// What the names of variables begin with that all keys become.
    pub prefixes: BTreeSet<String>,
    /// Those that are files.
    pub files: BTreeSet<String>,
    /// Those of the variables and files that must exist.
    pub required: BTreeSet<String>,
    /// Whether the source itself must exist.
    pub presence: Presence,
    /// Whether the platform team gives it to all servers of the tenant, so that it needs no label.
    pub is_granted: bool,
    /// Whether a server runs all the same that may not have it.
    pub may_be_refused: bool,
}

impl Keys {
    /// Whether a key is a variable.
    pub fn is_variable(&self, key: &str) -> bool {
        self.variables.contains(key) || !self.prefixes.is_empty()
    }

    /// Whether a key is used.
    pub fn uses(&self, key: &str) -> bool {
        self.all || self.variables.contains(key) || self.files.contains(key)
    }
}

/// All that a program's configuration, and the pull of its image, refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References(pub BTreeMap<Source, Keys>);

impl References {
    /// Returns the references of a program.
    pub fn of(container: &Container) -> Self {
        let mut references = Self::default();
        for from in container.env.iter().filter_map(|variable| variable.value_from.as_ref()) {
            let Some((source, key)) = Source::of_variable(from) else { continue };
            let keys = references.0.entry(source).or_default();
            keys.variables.insert(key.to_owned());
            if !from.is_optional() {
                keys.presence = Presence::Required;
                keys.required.insert(key.to_owned());
            }
        }
        for from in &container.env_from {
            let Some(source) = Source::of_env_from(from) else { continue };
            let keys = references.0.entry(source).or_default();
            keys.all = true;
            keys.prefixes.insert(from.prefix.clone());
            if !from.is_optional() {
                keys.presence = Presence::Required;
            }
        }
        for files in &container.files {
            let Some(source) = Source::of_files(files) else { continue };
            let keys = references.0.entry(source).or_default();
            keys.all |= files.items.is_empty();
            let items = files.items.iter().map(|item| item.key.clone());
            keys.files.extend(items.clone());
            if !files.is_optional() {
                keys.presence = Presence::Required;
                keys.required.extend(items);
            }
        }
        references
    }

    /// Adds the Secrets with which the image is pulled: those that the server names and those that its tenant names. The latter
    /// are for all servers, so one that is missing must not stop each of them.
    #[must_use]
    pub fn with_pull_secrets(mut self, server: &[PullSecretRef], tenant: &[PullSecretRef]) -> Self {
        for (secrets, is_granted) in [(server, false), (tenant, true)] {
            for PullSecretRef { name } in secrets {
                let source = Source::PullSecret(name.clone());
                let new = || Keys { may_be_refused: is_granted, ..Keys::default() };
                let keys = self.0.entry(source).or_insert_with(new);
                keys.files.insert(PULL_SECRET_KEY.into());
                keys.required.insert(PULL_SECRET_KEY.into());
                keys.presence = Presence::Required;
                keys.is_granted |= is_granted;
            }
        }
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
