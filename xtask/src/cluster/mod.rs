//! `cargo xtask cluster`: a real Kubernetes on this machine.
//!
//! Where docker runs, kind creates the cluster. Elsewhere the packaged node ([`node`]) does: the Kubernetes programs,
//! built from their Go modules, with Debian's containerd. Tests of controllers can start only etcd and the API server.
//! [`engine`] is a docker engine of the tests, with which they try kind.
//! Other tasks use [`Cluster`]: start reading there.

mod cgroups;
pub mod cli;
mod control_plane;
pub mod engine;
mod kind;
mod layout;
mod namespaces;
mod node;
mod pki;
mod plan;
mod programs;
mod ready;
pub mod supervisor;
pub mod verify;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::layout::Layout;
pub use self::namespaces::SUPERVISE;
use self::plan::Plan;
use crate::image::{self, Builder};
use crate::tools::{cache, command, debian, go, progress};

/// Name of the cluster when none is given.
pub const DEFAULT_NAME: &str = "fleet";

/// How a cluster runs on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The packaged node, in namespaces of this machine.
    Node,
    /// A kind node in docker.
    Kind,
    /// Only etcd and the API server, on the loopback of this machine.
    ApiServer,
}

impl Mode {
    fn builder(self) -> Builder {
        match self {
            Self::Kind => Builder::Docker,
            Self::Node | Self::ApiServer => Builder::Buildah,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Node => "packaged node",
            Self::Kind => "kind",
            Self::ApiServer => "API server only",
        })
    }
}

/// The ways to run a cluster that can run pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum With {
    /// kind, in docker.
    Kind,
    /// The packaged node, as root on Debian 12.
    Node,
}

/// How to run a cluster that can run pods.
#[derive(Debug, Clone, Default, Args)]
pub struct Way {
    /// How to run the cluster; by default with kind where docker runs, and on the packaged node elsewhere.
    #[arg(long, value_enum)]
    pub with: Option<With>,
    /// The image of the kind node, which docker must have or can pull; by default that of kind's release. The one of this
    /// repository, `mcp-fleet.local/kind-node:1`, is built first.
    #[arg(long)]
    pub kind_image: Option<String>,
}

impl Way {
    /// Returns the way for tests: the packaged node where it can run, so that a docker engine that happens to run does not
    /// change what is tested.
    pub fn of_tests(with: Option<With>) -> Self {
        Self {
            with: with_of_tests(with, rustix::process::geteuid().is_root() && debian::is_bookworm()),
            kind_image: None,
        }
    }

    /// Returns the program that builds images for a cluster that runs this way.
    pub fn builder(&self) -> Result<Builder> {
        Ok(self.mode()?.builder())
    }

    fn mode(&self) -> Result<Mode> {
        match self.with {
            Some(With::Node) => Ok(Mode::Node),
            Some(With::Kind) if !image::docker_runs() => {
                bail!("kind needs docker, which does not answer: `docker info` fails. Start it, or use `--with node`")
            }
            Some(With::Kind) => Ok(Mode::Kind),
            None => Ok(if image::docker_runs() { Mode::Kind } else { Mode::Node }),
        }
    }
}

fn with_of_tests(chosen: Option<With>, node_can_run: bool) -> Option<With> {
    chosen.or(node_can_run.then_some(With::Node))
}

/// Which cluster to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the cluster. Clusters with different names do not affect each other.
    pub name: String,
    /// Whether to start only etcd and the API server, for tests of controllers.
    pub apiserver_only: bool,
    /// How to run the cluster otherwise.
    pub way: Way,
}

/// A running cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    layout: Layout,
    mode: Mode,
}

impl Cluster {
    /// Starts a cluster and waits until it can run pods. Keeps a cluster that is already up, after checking that it
    /// works. Removes what a crashed cluster left behind.
    pub fn up(options: &Options) -> Result<Self> {
        let layout = Layout::new(&options.name)?;
        let mode = if options.apiserver_only { Mode::ApiServer } else { options.way.mode()? };
        let cluster = Self { layout, mode };
        let _lock = lock(&cluster.layout)?;
        if mode == Mode::Node && !rustix::process::geteuid().is_root() {
            bail!(
                "no cluster can run here: docker does not answer (`docker info` fails), and without it, root is \
                 needed. Install docker (https://docs.docker.com/engine/install) and start it, or run this command \
                 as root on Debian 12"
            );
        }
        match running_mode(&cluster.layout)? {
            None if mode == Mode::Kind => {
                kind::up(&cluster.layout, options.way.kind_image.as_deref())?;
                return Ok(cluster);
            }
            Some(running) if running == mode => {}
            Some(running) => bail!(
                "cluster {name} already runs in another mode ({running}). Stop it with `cargo xtask cluster down \
                 --name {name}`, or use another name",
                name = options.name
            ),
            None => {
                remove(&cluster.layout)?;
                cluster.start()?;
            }
        }
        cluster.finish().with_context(|| logs_hint(&cluster.layout))?;
        Ok(cluster)
    }

    /// Returns a cluster that is already up.
    pub fn open(name: &str) -> Result<Self> {
        let layout = Layout::new(name)?;
        match running_mode(&layout)? {
            Some(mode) => Ok(Self { layout, mode }),
            None if kind::exists(&layout) => Ok(Self { layout, mode: Mode::Kind }),
            None => bail!("cluster {name} is not up. Start it with `cargo xtask cluster up --name {name}`"),
        }
    }

    /// Stops a cluster and removes everything it created, also after a crash. Does nothing if there is none.
    pub fn down(name: &str) -> Result<()> {
        let layout = Layout::new(name)?;
        let _lock = lock(&layout)?;
        if kind::exists(&layout) {
            kind::down(&layout)?;
        }
        remove(&layout)
    }

    /// Returns the path of the administrator's kubeconfig. With [`Mode::Node`], its server address is reachable only
    /// from inside the cluster's network: see [`Self::command`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// Returns how the cluster runs.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the program that builds images for this cluster.
    pub fn builder(&self) -> Builder {
        self.mode.builder()
    }

    /// Returns a command that runs `program` in the cluster's network, with KUBECONFIG set and this cluster's kubectl
    /// first on PATH. The program sees the host's files and processes.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = match self.mode {
            Mode::Kind | Mode::ApiServer => Command::new(program),
            Mode::Node => {
                let supervisor = namespaces::supervisor(&self.layout)?.context("the cluster has stopped")?;
                namespaces::in_network(supervisor, program.as_ref())
            }
        };
        // With kind, use the kubectl of this machine or build one. The other modes have their own.
        let programs = match self.mode {
            Mode::Node | Mode::ApiServer => Some(programs::folder(&self.layout)),
            Mode::Kind if command::on_path("kubectl") => None,
            Mode::Kind => Some(go::kubernetes()?),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = programs.into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?);
        command.env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }

    /// Runs kubectl with `arguments` and returns what it printed.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        command::output(self.command("kubectl")?.args(arguments))
    }

    /// Runs kubectl with `arguments` and `input` on its standard input.
    pub fn kubectl_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Result<String> {
        command::output_with_input(self.command("kubectl")?.args(arguments), input)
    }

    /// Loads an image archive into the cluster, so that pods can use it with `imagePullPolicy: Never`.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        match self.mode {
            Mode::Node => node::import(&self.layout, archive),
            Mode::Kind => kind::import(&self.layout, archive),
            Mode::ApiServer => bail!("cluster {} is only an API server and cannot run images", self.layout.name),
        }
    }

    /// Kills a program of the cluster, such as `kube-apiserver` or `kubelet`. It is restarted at once.
    pub fn restart(&self, unit: &str) -> Result<()> {
        match self.mode {
            Mode::Kind => kind::restart(&self.layout, unit),
            Mode::Node | Mode::ApiServer => {
                let supervisor = namespaces::supervisor(&self.layout)?.context("the cluster has stopped")?;
                namespaces::kill_unit(&self.layout, supervisor, unit)
            }
        }
    }

    /// Writes the plan, starts the supervisor with it and waits for the API server.
    fn start(&self) -> Result<()> {
        let layout = &self.layout;
        for folder in ["log", "pid"] {
            fs::create_dir_all(layout.path(folder))
                .with_context(|| format!("failed to create {}", layout.state.display()))?;
        }
        let plan =
            if self.mode == Mode::Node { node::prepare(layout)? } else { control_plane::api_server_only(layout)? };
        plan.write(layout)?;
        let usually = if self.mode == Mode::Node { "8 s" } else { "3 s" };
        progress::step(format!("starting cluster {}", layout.name), usually, || {
            let mut child = namespaces::start(layout, &plan)?;
            let ready = ready::until("the API server", || match child.try_wait()? {
                Some(status) => bail!("the supervisor of the cluster exited ({status})"),
                None => self.api_is_ready(),
            });
            ready.with_context(|| logs_hint(layout))
        })
    }

    /// Waits until the cluster can run pods.
    fn finish(&self) -> Result<()> {
        ready::until("the API server", || self.api_is_ready())?;
        match self.mode {
            Mode::Node => node::finish(&self.layout, &|| self.command("kubectl")),
            Mode::Kind | Mode::ApiServer => Ok(()),
        }
    }

    fn api_is_ready(&self) -> Result<bool> {
        // Without a supervisor there is no network to reach the API server through.
        if namespaces::supervisor(&self.layout)?.is_none() {
            return Ok(false);
        }
        Ok(self.kubectl(&["get", "--raw=/readyz", "--request-timeout=2s"]).is_ok())
    }
}

fn logs_hint(layout: &Layout) -> String {
    format!("the cluster did not become ready; the logs of its programs are in {}", layout.logs().display())
}

/// Locks a cluster, so that two tasks that start or stop it run one after the other.
fn lock(layout: &Layout) -> Result<fs::File> {
    let folder = cache::root()?.join("locks");
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let file = fs::File::create(folder.join(&layout.name))?;
    file.lock()?;
    Ok(file)
}

/// Returns how the cluster of this name runs in namespaces of this machine; `None` if it does not.
fn running_mode(layout: &Layout) -> Result<Option<Mode>> {
    if namespaces::supervisor(layout)?.is_none() {
        return Ok(None);
    }
    let plan = Plan::read(&Plan::file(layout))?;
    Ok(plan.map(|plan| if plan.own_network { Mode::Node } else { Mode::ApiServer }))
}

/// Stops the processes of a cluster in namespaces of this machine, and removes its cgroups and files.
fn remove(layout: &Layout) -> Result<()> {
    namespaces::stop(layout)?;
    cgroups::remove(layout)?;
    cache::remove(&layout.state)?;
    if let Some(parent) = layout.state.parent() {
        // Fails while other clusters have their folders here, which is fine.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_use_the_packaged_node_where_it_can_run_unless_another_way_is_chosen() {
        assert_eq!(with_of_tests(None, true), Some(With::Node));
        assert_eq!(with_of_tests(Some(With::Kind), true), Some(With::Kind));
        assert_eq!(with_of_tests(None, false), None);
    }
}
