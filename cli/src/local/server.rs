//! How a server runs on this machine: its command, what it may read, and its enclosure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use mcp_fleet_core::server_config::{DEFAULT_VARIABLES, check_program, http_options};
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::server::{Container, Execution, Http, Idle, OnChange};
use mcp_fleet_policy::units::Window;

use super::arguments::{Arguments, SPECIAL};
use super::enclosure::{Files, OWN_PROGRAM, Scratch, is_in_system};
use super::sources::Sources;

/// This program's folder, in which servers look for programs after those of a pod.
const OWN_FOLDER: &str = "/opt/mcp-fleet/bin";
/// Longest time that a program has to end by itself.
const MAX_STOP_GRACE: Window = Window::from_secs(3);
/// Whether servers over HTTP run. Everyone on this machine could call them, so only the tests with real servers do that: no
/// release is built with this feature.
const RUNS_HTTP: bool = cfg!(feature = "server-tests");
/// The program of a server that is part of this one.
const THIS_PROGRAM: &str = "mcp-fleet";

/// What runs for a server.
#[derive(Clone)]
pub(crate) struct Launch {
    /// As it is declared.
    declared: Container,
    /// Where it serves HTTP, if it does.
    http: Option<Http>,
    /// When it is stopped because nobody calls it.
    idle: Option<Idle>,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// May contain secrets, as the files may.
    pub(crate) environment: Vec<(String, String)>,
    /// What the server may read, besides the system's folders.
    pub(crate) readable: Vec<PathBuf>,
    /// Where the server has its workspace.
    pub(crate) workspace: Option<PathBuf>,
    pub(crate) files: Vec<Files>,
    pub(crate) scratch: Vec<Scratch>,
}

/// Values are nobody's business.
impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("declared", &self.declared).finish_non_exhaustive()
    }
}

impl Launch {
    /// Returns whether what runs need not be replaced by this.
    pub(crate) fn is_as(&self, running: &Self) -> bool {
        let is_configured_as = self.environment == running.environment && self.files == running.files;
        self.declared == running.declared
            && self.http == running.http
            && self.idle == running.idle
            && self.command == running.command
            && self.readable == running.readable
            && self.workspace == running.workspace
            && (is_configured_as || self.declared.on_change == OnChange::Ignore)
    }

    /// Returns the directory in which the program starts.
    pub(crate) fn working_dir(&self) -> Option<PathBuf> {
        self.declared.working_dir.as_ref().map(PathBuf::from)
    }

    /// Returns the options of the shim for a server over HTTP.
    pub(crate) fn http_options(&self) -> impl Iterator<Item = String> {
        self.http.iter().flat_map(http_options)
    }

    /// Returns the options of the shim for times. Whoever stops a fleet waits for all of its servers, so none may take long to end.
    pub(crate) fn times(&self) -> impl Iterator<Item = String> {
        let Container { start_timeout, stop_grace, .. } = &self.declared;
        let stop_grace = stop_grace.min(&MAX_STOP_GRACE);
        let times = [("--start-timeout", Some(start_timeout)), ("--stop-grace", Some(stop_grace))];
        let idle_stop = ("--idle-stop", self.idle.as_ref().map(|idle| &idle.stop_after));
        let times = times.into_iter().chain([idle_stop]);
        times.filter_map(|(option, time)| Some(format!("{option}={}", time?.ceil_secs())))
    }
}

/// Returns how a server runs. Fails if it cannot run without a container, and says what to do.
pub(crate) fn launch(server: &MCPServer, arguments: &Arguments, sources: &Sources) -> anyhow::Result<Option<Launch>> {
    let namespace = server.metadata.namespace.as_deref().unwrap_or_default();
    let name = server.metadata.name.as_deref().unwrap_or_default();
    if server.spec.replicas == 0 {
        return Ok(None);
    }
    if server.spec.source.http().is_some() && !RUNS_HTTP {
        bail!(
            "it serves HTTP, and everyone on this machine could call it on its port; try a server here that speaks over its \
             standard input and output, or use a cluster"
        );
    }
    let container = server.spec.source.container().context("it has no source with a program")?;
    let given = arguments.commands.iter().find(|command| command.server.is(namespace, name));
    let command = match given {
        Some(given) => given.command.clone(),
        None if container.command.first().is_some_and(|program| program == THIS_PROGRAM) => container.command.clone(),
        None => bail!(
            "its image {} cannot run without a container. Say what to run instead: --server-command '{name}={}', if that \
             program is installed on this machine",
            container.image,
            shlex::try_join(container.command.iter().map(String::as_str)).unwrap_or_default()
        ),
    };
    let workspace = server.spec.workspace.as_ref().map(|workspace| &*workspace.mount_path);
    check_program(workspace, container).map_err(|problem| anyhow!(problem.message))?;
    let mut configuration = sources.read(namespace, name, container)?;
    let command: Vec<String> = command.into_iter().chain(container.args.iter().cloned()).collect();
    let (program, rest) = command.split_first().context("its command is empty")?;
    let folders = arguments.folders.iter().filter(|folder| folder.server.is(namespace, name));
    let mut readable: Vec<PathBuf> = folders.map(|folder| folder.path.clone()).collect();
    let program = if program == THIS_PROGRAM {
        OWN_PROGRAM.to_owned()
    } else {
        let program = find(program)?;
        readable.extend(own_folder(&program, &readable)?);
        program.to_string_lossy().into_owned()
    };
    check_apart(container, &readable)?;
    let mut environment = default_variables();
    configuration.add_variables(&mut environment);
    Ok(Some(Launch {
        declared: container.clone(),
        http: server.spec.source.http().cloned(),
        idle: server.spec.idle,
        command: [program].into_iter().chain(rest.iter().cloned()).collect(),
        environment: environment.into_iter().collect(),
        readable,
        workspace: server.spec.workspace.as_ref().map(|workspace| PathBuf::from(&workspace.mount_path)),
        files: std::mem::take(&mut configuration.files),
        scratch: scratch(container),
    }))
}

/// Returns the directories for temporary data of a program.
fn scratch(container: &Container) -> Vec<Scratch> {
    let of = |declared: &mcp_fleet_crds::server::Scratch| Scratch {
        path: PathBuf::from(&declared.mount_path),
        bytes: declared.size_limit.get(),
        may_execute: declared.execute == Execution::Allow,
    };
    container.scratch.iter().map(of).collect()
}

/// Checks that no directory that is made for a program would be made in a folder of this machine.
fn check_apart(container: &Container, readable: &[PathBuf]) -> anyhow::Result<()> {
    let files = container.files.iter().map(|files| &files.mount_path);
    for path in files.chain(container.scratch.iter().map(|scratch| &scratch.mount_path)).map(Path::new) {
        let overlaps = |folder: &&PathBuf| path.starts_with(folder) || folder.starts_with(path);
        if is_in_system(path) || readable.iter().any(|folder| overlaps(&folder)) {
            bail!(
                "its {} is or contains a folder of this machine, or is in one that the server may read. In a cluster that is the \
                 image; choose another mountPath to try it here",
                path.display()
            );
        }
    }
    Ok(())
}

/// Returns the variables of a server's process, as in a pod.
fn default_variables() -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from(DEFAULT_VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Some(path) = variables.get_mut("PATH") {
        *path += ":";
        *path += OWN_FOLDER;
    }
    variables
}

/// Finds a program on this machine.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| format!("failed to find {program}"));
    if program.contains('/') {
        let path = absolute(Path::new(program))?;
        return if path.is_file() { Ok(path) } else { bail!("there is no program {program} on this machine") };
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).map(|folder| folder.join(program)).find(|path| path.is_file());
    absolute(&found.with_context(|| format!("there is no program {program} on the PATH of this machine"))?)
}

/// Returns the folder of a program outside of the system's folders, which its server may read. Fails if that would show
/// the server the files of a user.
fn own_folder(program: &Path, readable: &[PathBuf]) -> anyhow::Result<Option<PathBuf>> {
    let real = program.canonicalize().with_context(|| format!("failed to find {}", program.display()))?;
    let may_read = |path: &Path| is_in_system(path) || readable.iter().any(|folder| path.starts_with(folder));
    if may_read(program) && may_read(&real) {
        return Ok(None);
    }
    let folder = program.parent().filter(|folder| real.starts_with(folder));
    let shows_home = |folder: &Path| {
        // Either may be reached through links.
        let real = folder.canonicalize();
        real.map_or(true, |real| homes().iter().any(|home| home.starts_with(&real)) || real == Path::new("/"))
    };
    match folder {
        Some(folder) if !shows_home(folder) && !SPECIAL.iter().any(|special| folder.starts_with(special)) => {
            Ok(Some(folder.to_owned()))
        }
        _ => bail!(
            "its program {} is not in a folder that a server may read. Name the folder with everything that it needs: \
             --server-folder NAME=DIR",
            real.display()
        ),
    }
}

/// Returns the home directories of this machine's users, without links: that of the environment, and those of the accounts.
fn homes() -> Vec<PathBuf> {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_accounts = accounts.lines().filter_map(|line| line.split(':').nth(5)).map(PathBuf::from);
    let all = std::env::var_os("HOME").map(PathBuf::from).into_iter().chain(of_accounts);
    // Accounts of services have homes such as `/` and `/bin`, which hold no files of people.
    let is_home = |home: &PathBuf| home.components().count() > 1 && !is_in_system(home);
    all.filter(is_home).map(|home| home.canonicalize().unwrap_or(home)).collect()
}

/// Checks that a server can read nothing of the folders in `private`, which hold keys, credentials and other servers' files.
pub(crate) fn check_readable(launch: &Launch, private: &[&Path]) -> anyhow::Result<()> {
    for readable in &launch.readable {
        let real = readable.canonicalize().with_context(|| format!("failed to find {}", readable.display()))?;
        let overlaps = |private: &&&Path| real.starts_with(private) || private.starts_with(&real);
        if let Some(private) = private.iter().find(overlaps) {
            bail!(
                "it would read {}, where keys and credentials are. Keep its program in a folder apart from that, or choose \
                 another with --state and --credentials",
                private.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &[&str]) -> Arguments {
        Line::parse_from(["try", "-f", "x"].iter().chain(line)).arguments
    }

    fn server(command: &[&str], change: &Value) -> MCPServer {
        let container =
            json!({"image": "r.example/files:1", "command": command, "env": [{"name": "HOME", "value": "/h"}]});
        let mut spec = json!({"source": {"type": "Stdio", "stdio": container}, "workspace": {"mountPath": "/workspace", "storage": "1Gi"}});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPServer", "spec": spec,
            "metadata": {"name": "files", "namespace": "acme"}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_image_needs_a_command_instead() {
        let server = server(&["/usr/local/bin/files", "/work space"], &json!({}));
        let refused = launch(&server, &arguments(&[]), &Sources::default()).unwrap_err().to_string();
        assert!(refused.contains("--server-command 'files=/usr/local/bin/files "), "{refused}");
        let launch =
            launch(&server, &arguments(&["--server-command", "files=cat -"]), &Sources::default()).unwrap().unwrap();
        assert_eq!(launch.command[1..], ["-"]);
        assert!(launch.command[0].ends_with("/cat") && launch.readable.is_empty());
        assert!(launch.environment.contains(&("HOME".into(), "/h".into())));
        assert_eq!(launch.workspace.as_deref(), Some(Path::new("/workspace")));
    }

    #[test]
    fn a_server_of_this_program_needs_no_command() {
        let launch =
            launch(&server(&["mcp-fleet", "example-server"], &json!({})), &arguments(&[]), &Sources::default())
                .unwrap()
                .unwrap();
        assert_eq!(launch.command, [OWN_PROGRAM, "example-server"]);
    }

    #[test]
    fn no_directory_is_made_in_a_folder_of_this_machine() {
        let with = |files: &str, scratch: &str| {
            let mut server = server(&["mcp-fleet"], &json!({}));
            let container = server.spec.source.stdio.as_mut().unwrap();
            container.files =
                serde_json::from_value(json!([{"mountPath": files, "configMapRef": {"name": "x"}}])).unwrap();
            container.scratch = serde_json::from_value(json!([{"mountPath": scratch, "sizeLimit": "1Mi"}])).unwrap();
            let mut sources = Sources::default();
            sources.insert("ConfigMap", "acme", "x", &json!({})).unwrap();
            let arguments = arguments(&["--server-folder", "files=/var/tmp"]);
            launch(&server, &arguments, &sources).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(with("/etc/x", "/cache"), Ok(()));
        assert!(with("/usr/share/x", "/cache").unwrap_err().contains("/usr/share/x"));
        assert!(with("/etc/x", "/var/tmp/cache").unwrap_err().contains("/var/tmp/cache"));
        assert!(with("/etc/x", "/var").unwrap_err().contains("/var "));
        assert!(with("/cache/x", "/cache").unwrap_err().contains("overlap"));
    }

    #[test]
    fn a_server_without_replicas_does_not_run() {
        assert!(
            launch(&server(&["x"], &json!({"replicas": 0})), &arguments(&[]), &Sources::default()).unwrap().is_none()
        );
    }

    #[test]
    fn the_shim_is_told_when_to_stop_a_server_that_nobody_calls() {
        let mut program = server(&["mcp-fleet"], &json!({}));
        let started = |program: &MCPServer| launch(program, &arguments(&[]), &Sources::default()).unwrap().unwrap();
        let before = started(&program);
        assert_eq!(before.times().collect::<Vec<_>>(), ["--start-timeout=60", "--stop-grace=2"]);
        program.spec.idle = serde_json::from_value(json!({"stopAfter": "90s"})).unwrap();
        let after = started(&program);
        assert_eq!(after.times().last().unwrap(), "--idle-stop=90");
        assert!(!after.is_as(&before));
    }

    #[test]
    fn a_program_in_the_home_folder_does_not_open_it() {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        let folder = tempfile::tempdir_in(&home).unwrap();
        let inside = folder.path().join("server");
        std::fs::write(&inside, "").unwrap();
        assert_eq!(own_folder(&inside, &[]).unwrap().as_deref(), Some(folder.path()));
        let direct = tempfile::NamedTempFile::new_in(&home).unwrap();
        assert!(own_folder(direct.path(), &[]).is_err());
        let program = server(&["mcp-fleet"], &json!({}));
        let launch = |folder: &Path| Launch {
            readable: vec![folder.to_owned()],
            ..launch(&program, &arguments(&[]), &Sources::default()).unwrap().unwrap()
        };
        let private = [folder.path().join("state")];
        std::fs::create_dir_all(private[0].join("keys")).unwrap();
        let private = [private[0].as_path()];
        for overlapping in [folder.path().to_owned(), private[0].to_owned(), private[0].join("keys")] {
            let refused = check_readable(&launch(&overlapping), &private).unwrap_err().to_string();
            assert!(refused.contains("where keys and credentials are"), "{refused}");
        }
        let apart = folder.path().join("apart");
        std::fs::create_dir(&apart).unwrap();
        check_readable(&launch(&apart), &private).unwrap();
        assert_eq!(own_folder(&inside, &[folder.path().to_owned()]).unwrap(), None);
    }
}
