//! The command line of `mcp-fleet try`.

use std::path::PathBuf;
use std::str::FromStr;

/// Runs the objects in YAML files on this machine, without Kubernetes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File or folder with the objects, as for `kubectl apply -f`. Changes are applied while it runs.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Command to run for a server, instead of its image: `NAME=COMMAND ARGUMENT…`, with quotes as in a shell. `NAME` is the
    /// name of the MCPServer, or `NAMESPACE/NAME`.
    #[arg(long = "server-command", value_name = "NAME=COMMAND")]
    pub(crate) commands: Vec<ServerCommand>,
    /// Folder or file that a server may read, besides the system's programs and libraries: `NAME=PATH`. A server reads
    /// nothing else of this machine.
    #[arg(long = "server-folder", value_name = "NAME=PATH")]
    pub(crate) folders: Vec<ServerFolder>,
    /// Port of a tenant's gateway on this machine: `TENANT=PORT`, or `PORT` if there is one tenant. By default a free one is
    /// chosen, and kept for the next time.
    #[arg(long = "port", value_name = "[TENANT=]PORT")]
    pub(crate) ports: Vec<TenantPort>,
    /// Folder for credentials, each in a folder NAMESPACE/PRINCIPAL. By default it is in the state folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) credentials: Option<PathBuf>,
    /// Folder for keys, ledgers, workspaces, audit lines and logs, which survive a restart.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// Folders that are not those of this machine for a server.
pub(crate) const SPECIAL: [&str; 5] = ["/tmp", "/proc", "/sys", "/dev", "/mcp-fleet"];

impl Arguments {
    /// Returns what is wrong with the names on the command line, given the namespaces and names of the servers, and the names
    /// of the tenants.
    pub(crate) fn check_names(&self, servers: &[(String, String)], tenants: &[String]) -> Vec<String> {
        let names = self.commands.iter().map(|it| &it.server).chain(self.folders.iter().map(|it| &it.server));
        let is_unknown = |server: &&ServerName| !servers.iter().any(|(namespace, name)| server.is(namespace, name));
        let mut problems: Vec<String> =
            names.filter(is_unknown).map(|name| format!("there is no MCPServer {name}")).collect();
        for port in &self.ports {
            match &port.tenant {
                Some(tenant) if !tenants.contains(tenant) => problems.push(format!("there is no MCPTenant {tenant}")),
                None if tenants.len() > 1 => {
                    let example = tenants.first().map(String::as_str).unwrap_or_default();
                    problems.push(format!("--port has to name its tenant: --port {example}={}", port.port));
                }
                _ => {}
            }
        }
        problems
    }
}

/// A server, by the name that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerName {
    namespace: Option<String>,
    name: String,
}

impl ServerName {
    fn new(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self { namespace: Some(namespace.to_owned()), name: name.to_owned() },
            None => Self { namespace: None, name: text.to_owned() },
        }
    }

    /// Returns whether this names a server.
    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace.as_deref().is_none_or(|it| it == namespace)
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, "{namespace}/"))?;
        f.write_str(&self.name)
    }
}

/// The command of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerCommand {
    pub(crate) server: ServerName,
    pub(crate) command: Vec<String>,
}

/// Something that a server may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerFolder {
    pub(crate) server: ServerName,
    pub(crate) path: PathBuf,
}

/// The port of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TenantPort {
    pub(crate) tenant: Option<String>,
    pub(crate) port: u16,
}

fn named(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| format!("{text:?} is not NAME=VALUE"))
}

impl FromStr for ServerCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = named(text)?;
        let command = shlex::split(command).filter(|words| !words.is_empty());
        let command = command.ok_or_else(|| format!("the command of {name} has an open quote, or is empty"))?;
        Ok(Self { server: ServerName::new(name), command })
    }
}

impl FromStr for ServerFolder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = named(text)?;
        let path = std::fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))?;
        if let Some(special) = SPECIAL.iter().find(|special| path.starts_with(special)) {
            return Err(format!("{} cannot be read by a server, which has a {special} of its own", path.display()));
        }
        Ok(Self { server: ServerName::new(name), path })
    }
}

impl FromStr for TenantPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tenant, port) = match text.split_once('=') {
            Some((tenant, port)) => (Some(tenant.to_owned()), port),
            None => (None, text),
        };
        let port = port.parse::<u16>().ok().filter(|port| *port > 0);
        Ok(Self { tenant, port: port.ok_or_else(|| format!("{text:?} has no port between 1 and 65535"))? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_is_split_like_a_shell_does() {
        let parsed: ServerCommand = "acme/files=npx -y 'a b' c=d".parse().unwrap();
        assert_eq!(parsed.command, ["npx", "-y", "a b", "c=d"]);
        assert!(parsed.server.is("acme", "files") && !parsed.server.is("beta", "files"));
        assert!("files=x".parse::<ServerCommand>().unwrap().server.is("beta", "files"));
        for text in ["files", "files=", "=x", "files='x", "files=  "] {
            assert!(text.parse::<ServerCommand>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_names_nothing_is_noticed() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let check = |line: &[&str], tenants: &[&str]| {
            let arguments = <Line as clap::Parser>::parse_from(["try", "-f", "x"].iter().chain(line)).arguments;
            let tenants: Vec<_> = tenants.iter().map(|name| (*name).to_owned()).collect();
            arguments.check_names(&[("acme".into(), "files".into())], &tenants)
        };
        let none: [&str; 0] = [];
        assert_eq!(check(&["--server-command", "files=x", "--port", "8443"], &["acme"]), none);
        assert_eq!(check(&["--server-command", "fils=x"], &["acme"]), ["there is no MCPServer fils"]);
        assert_eq!(check(&["--server-folder", "beta/files=/usr"], &["acme"]), ["there is no MCPServer beta/files"]);
        assert_eq!(check(&["--port", "beta=8443"], &["acme"]), ["there is no MCPTenant beta"]);
        assert_eq!(check(&["--port", "8443"], &["acme", "beta"]), ["--port has to name its tenant: --port acme=8443"]);
        assert_eq!(check(&["--port", "acme=8443"], &["acme", "beta"]), none);
    }

    #[test]
    fn a_port_may_name_its_tenant() {
        assert_eq!("8443".parse(), Ok(TenantPort { tenant: None, port: 8443 }));
        assert_eq!("acme=8443".parse(), Ok(TenantPort { tenant: Some("acme".into()), port: 8443 }));
        for text in ["0", "x", "acme=", "acme=70000"] {
            assert!(text.parse::<TenantPort>().is_err(), "{text}");
        }
    }
}
