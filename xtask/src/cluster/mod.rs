//! `cargo xtask cluster`: a real Kubernetes on this machine.
//!
//! Where docker runs, kind makes it. Elsewhere it is the packaged node ([`node`]): the programs of Kubernetes, built from
//! their Go modules, with Debian's containerd. For tests of controllers there is also the API server alone. [`Cluster`]
//! is what the other tasks use.

mod cgroups;
pub mod cli;
mod control_plane;
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
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use self::layout::Layout;
pub use self::namespaces::SUPERVISE;
use self::plan::Plan;
use crate::image;
use crate::tools::{cache, command, go, progress};

/// The name of the cluster when none is given.
pub const DEFAULT_NAME: &str = "fleet";

/// What kind of cluster a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A node of our own in namespaces of this machine.
    Node,
    /// A node in docker.
    Kind,
    /// etcd and the API server, on the loopback of this machine.
    ApiServer,
}

/// How to bring a cluster up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's name; clusters of different names do not touch each other.
    pub name: String,
    /// Only etcd and the API server, for tests of controllers.
    pub apiserver_only: bool,
}

/// A cluster that is up.
#[derive(Debug, Clone)]
pub struct Cluster {
    layout: Layout,
    mode: Mode,
}

impl Cluster {
    /// Brings a cluster up and waits until it takes work. One that is up already is checked and kept; what an earlier
    /// one has left is removed first.
    pub fn up(options: &Options) -> Result<Self> {
        let layout = Layout::new(&options.name)?;
        let mode = match (options.apiserver_only, image::docker_runs()) {
            (true, _) => Mode::ApiServer,
            (false, true) => Mode::Kind,
            (false, false) => Mode::Node,
        };
        let cluster = Self { layout, mode };
        let _lock = lock(&cluster.layout)?;
        if mode == Mode::Kind {
            kind::up(&cluster.layout)?;
            return Ok(cluster);
        }
        if mode == Mode::Node && !rustix::process::geteuid().is_root() {
            bail!("a cluster needs a docker engine that answers `docker info`, or root for the packaged node");
        }
        match running_mode(&cluster.layout)? {
            Some(running) if running == mode => {}
            Some(running) => bail!(
                "cluster {name} is up as {running:?}; take it down (`cargo xtask cluster down --name {name}`) or use another name",
                name = options.name
            ),
            None => {
                remove(&cluster.layout)?;
                cluster.start()?;
            }
        }
        cluster.finish().with_context(|| format!("the logs are in {}", cluster.layout.logs().display()))?;
        Ok(cluster)
    }

    /// A cluster that was brought up before.
    pub fn open(name: &str) -> Result<Self> {
        let layout = Layout::new(name)?;
        match running_mode(&layout)? {
            Some(mode) => Ok(Self { layout, mode }),
            None if image::docker_runs() && kind::exists(&layout)? => Ok(Self { layout, mode: Mode::Kind }),
            None => bail!("cluster {name} is not up: `cargo xtask cluster up --name {name}`"),
        }
    }

    /// Takes a cluster down and removes everything it made, also what a crash has left.
    pub fn down(name: &str) -> Result<()> {
        let layout = Layout::new(name)?;
        let _lock = lock(&layout)?;
        if image::docker_runs() {
            kind::down(&layout)?;
        }
        remove(&layout)
    }

    /// The administrator's kubeconfig. Of a [`Mode::Node`] its address is reached only from inside the cluster's
    /// network: see [`Self::command`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// What kind of cluster it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// A command that runs `program` where the cluster's addresses are reached, with KUBECONFIG set and this cluster's
    /// kubectl first on the path. Files and processes are the host's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = match self.mode {
            Mode::Kind | Mode::ApiServer => Command::new(program),
            Mode::Node => {
                let supervisor = namespaces::supervisor(&self.layout)?.context("the cluster has gone down")?;
                namespaces::in_network(supervisor, program.as_ref())
            }
        };
        // Who has docker has a kubectl of their own, or builds one; other clusters bring theirs.
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

    /// Loads an image archive into the cluster, so that pods can name it with `imagePullPolicy: Never`.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        match self.mode {
            Mode::Node => node::import(&self.layout, archive),
            Mode::Kind => kind::import(&self.layout, archive),
            Mode::ApiServer => bail!("cluster {} is only an API server and runs no images", self.layout.name),
        }
    }

    /// Kills a program of the cluster, such as `kube-apiserver` or `kubelet`, which is started again at once.
    pub fn restart(&self, unit: &str) -> Result<()> {
        match self.mode {
            Mode::Kind => kind::restart(&self.layout, unit),
            Mode::Node | Mode::ApiServer => {
                let supervisor = namespaces::supervisor(&self.layout)?.context("the cluster has gone down")?;
                namespaces::kill_unit(&self.layout, supervisor, unit)
            }
        }
    }

    /// Writes the plan and starts the supervisor on it.
    fn start(&self) -> Result<()> {
        let layout = &self.layout;
        for folder in ["log", "pid"] {
            fs::create_dir_all(layout.path(folder))
                .with_context(|| format!("failed to create {}", layout.state.display()))?;
        }
        let plan = if self.mode == Mode::Node { node::prepare(layout)? } else { control_plane::alone(layout)? };
        plan.write(layout)?;
        let usually = if self.mode == Mode::Node { "8 s" } else { "3 s" };
        progress::step(format!("starting cluster {}", layout.name), usually, || {
            let mut child = namespaces::start(layout, &plan)?;
            let ready = ready::until("the API server", || match child.try_wait()? {
                Some(status) => bail!("the cluster's supervisor ended ({status})"),
                None => self.answers(),
            });
            ready.with_context(|| format!("the logs are in {}", layout.logs().display()))
        })
    }

    /// Waits until the cluster takes work.
    fn finish(&self) -> Result<()> {
        ready::until("the API server", || self.answers())?;
        match self.mode {
            Mode::Node => node::finish(&self.layout, &|| self.command("kubectl")),
            Mode::Kind | Mode::ApiServer => Ok(()),
        }
    }

    fn answers(&self) -> Result<bool> {
        // Before the supervisor has made its network there is nowhere to ask.
        if namespaces::supervisor(&self.layout)?.is_none() {
            return Ok(false);
        }
        Ok(self.kubectl(&["get", "--raw=/readyz", "--request-timeout=2s"]).is_ok())
    }
}

/// Two tasks that bring up or take down one cluster go one after the other.
fn lock(layout: &Layout) -> Result<fs::File> {
    let folder = cache::root()?.join("locks");
    fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let file = fs::File::create(folder.join(&layout.name))?;
    file.lock()?;
    Ok(file)
}

/// What runs under this name in namespaces of this machine.
fn running_mode(layout: &Layout) -> Result<Option<Mode>> {
    if namespaces::supervisor(layout)?.is_none() {
        return Ok(None);
    }
    let plan = Plan::read(&Plan::file(layout))?;
    Ok(plan.map(|plan| if plan.own_network { Mode::Node } else { Mode::ApiServer }))
}

/// Ends and removes what lives in namespaces of this machine.
fn remove(layout: &Layout) -> Result<()> {
    namespaces::stop(layout)?;
    cgroups::remove(layout)?;
    cache::remove(&layout.state)?;
    if let Some(parent) = layout.state.parent() {
        // Fails while other clusters have theirs in it.
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}
