//! The table of servers and of the settings that each of them needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::server::{Container, Execution, HttpTransport, Medium, ServerLimits, SourceType};
use mcp_fleet_policy::class::Class;
use serde::Deserialize as _;
use serde_yaml_ng::Value;

use super::folder;
use super::package::{self, Package, read_text};

/// Lines around the table.
const MARKS: [&str; 2] = [
    "<!-- Written by `cargo xtask servers` from tests/servers; change it there. -->\n",
    "<!-- The end of what is written by `cargo xtask servers`. -->\n",
];

/// Returns the page with another table.
pub(super) fn replace(page: &str, table: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let parts = page.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.context("the page lacks the lines around the table of servers")?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

/// Returns the table of these servers.
pub(super) fn render(names: &[String]) -> Result<String> {
    let mut table =
        "| server | package | source | settings besides image, command and catalogue | tools of the session |\n\
                     |---|---|---|---|---|\n"
            .to_owned();
    for name in names {
        table.push_str(&row(name).with_context(|| format!("tests/servers/{name}"))?);
    }
    Ok(table)
}

fn row(name: &str) -> Result<String> {
    let server = server(name)?;
    let package = package::read(name)?;
    let version = package.version(name)?;
    let note = package.note.as_ref().map(|note| format!("<br>{note}")).unwrap_or_default();
    let settings = explained(&settings(&server)?, &package)?;
    Ok(format!(
        "| [`{name}`](../tests/servers/{name}/server.yaml) | `{}` {version}{note} | {} | {settings} | {} |\n",
        package.name,
        source(&server)?,
        tools(&server)
    ))
}

/// Reads the object of a server.
fn server(name: &str) -> Result<MCPServer> {
    let text = read_text(&folder().join(name).join("server.yaml"))?;
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let value = Value::deserialize(document)?;
        if value["kind"] == "MCPServer" {
            return Ok(serde_yaml_ng::from_value(value)?);
        }
    }
    bail!("server.yaml has no MCPServer")
}

fn source(server: &MCPServer) -> Result<String> {
    let source = &server.spec.source;
    Ok(match source.kind {
        SourceType::Stdio => "Stdio".to_owned(),
        SourceType::HTTP => {
            let http = source.http().context("it has no source.http")?;
            let transport = match http.transport {
                HttpTransport::StreamableHTTP => "StreamableHTTP",
                HttpTransport::SSE => "SSE",
            };
            format!("HTTP, {transport}, port {}, `{}`", http.port, http.path)
        }
    })
}

/// Returns the settings that are not the default ones, as they are shown, by their names in `package.yaml`.
fn settings(server: &MCPServer) -> Result<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    let mut add = |name: String, shown: String| drop(settings.insert(name, shown));
    // Of a container and of limits, everything has to be looked at, so that no setting is left out of the table.
    let Container {
        image: _,
        command: _,
        args,
        env,
        env_from,
        files,
        on_change: _,
        scratch,
        working_dir,
        start_timeout,
        stop_grace,
        resources,
    } = server.spec.source.container().context("it has no program")?;
    if !args.is_empty() {
        add("args".to_owned(), format!("`args: [{}]`", args.join(", ")));
    }
    for variable in env {
        let shown = match &variable.value {
            Some(value) => format!("`{}={value}`", variable.name),
            None => format!("`{}` from a Secret", variable.name),
        };
        add(format!("env {}", variable.name), shown);
    }
    for scratch in scratch {
        let execute = if scratch.execute == Execution::Allow { " with `execute: Allow`" } else { "" };
        let medium = if scratch.medium == Medium::Memory { " in memory" } else { "" };
        add(format!("scratch {}", scratch.mount_path), format!("`scratch: {}`{medium}{execute}", scratch.mount_path));
    }
    if let Some(workspace) = &server.spec.workspace {
        add("workspace".to_owned(), format!("`workspace: {}`", workspace.mount_path));
    }
    let more = [
        ("envFrom", !env_from.is_empty()),
        ("files", !files.is_empty()),
        ("workingDir", working_dir.is_some()),
        ("startTimeout", start_timeout.ceil_secs() != 60),
        ("stopGrace", stop_grace.ceil_secs() != 2),
        ("resources", resources.is_some()),
        ("limits", server.spec.limits != ServerLimits::default()),
    ];
    if let Some((name, _)) = more.into_iter().find(|(_, is_set)| *is_set) {
        bail!("the table does not show {name} yet; add it to `settings` in xtask/src/servers/table.rs");
    }
    Ok(settings)
}

/// Returns the settings with what they are for. Fails if one of them is not explained, or another one is.
fn explained(settings: &BTreeMap<String, String>, package: &Package) -> Result<String> {
    let (set, explained): (BTreeSet<_>, BTreeSet<_>) = (settings.keys().collect(), package.settings.keys().collect());
    if let Some(name) = set.symmetric_difference(&explained).next() {
        bail!("{name} is either in server.yaml or in `settings` of package.yaml, but not in both");
    }
    let lines = settings.iter().map(|(name, shown)| match package.settings.get(name) {
        Some(reason) => format!("{shown}: {reason}"),
        None => shown.clone(),
    });
    let lines: Vec<_> = lines.collect();
    Ok(if lines.is_empty() { "none".to_owned() } else { lines.join("<br>") })
}

/// Returns how many tools of each class the catalogue declares.
fn tools(server: &MCPServer) -> String {
    let mut text = String::new();
    for class in [Class::Read, Class::Write, Class::Destructive] {
        let count = server.spec.tools.iter().filter(|tool| tool.class == class).count();
        if count > 0 {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{count} {class:?}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn package(settings: &[&str]) -> Package {
        let settings: BTreeMap<_, _> = settings.iter().map(|name| (*name, "why")).collect();
        let registry = serde_json::json!({"npm": {"file": "x"}});
        serde_json::from_value(serde_json::json!({"name": "x", "registry": registry, "settings": settings})).unwrap()
    }

    #[test]
    fn every_setting_is_explained_and_no_other() {
        let settings = BTreeMap::from([("args".to_owned(), "`args: [a]`".to_owned())]);
        assert_eq!(explained(&settings, &package(&["args"])).unwrap(), "`args: [a]`: why");
        assert_eq!(explained(&BTreeMap::new(), &package(&[])).unwrap(), "none");
        for others in [&[][..], &["args", "workspace"]] {
            assert!(explained(&settings, &package(others)).is_err(), "{others:?}");
        }
    }

    #[test]
    fn only_the_table_is_replaced() {
        let [begin, end] = MARKS;
        let page = format!("before\n{begin}| old |\n{end}after\n");
        assert_eq!(replace(&page, "| new |\n").unwrap(), format!("before\n{begin}| new |\n{end}after\n"));
        assert!(replace("a page\n", "| new |\n").is_err());
    }
}
