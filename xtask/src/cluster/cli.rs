//! The subcommands of `cargo xtask cluster`.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::{Cluster, DEFAULT_NAME, Mode, Options, verify};
use crate::tools::{go, progress};

/// `cargo xtask cluster …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// The cluster's name; clusters of different names do not touch each other.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring the cluster up and wait until it takes work.
    Up {
        /// Only etcd and the API server, for tests of controllers.
        #[arg(long)]
        apiserver_only: bool,
    },
    /// Take the cluster down and remove all that it made, also after a crash.
    Down,
    /// Say whether the cluster is up, and what runs in it.
    Status,
    /// Load an image archive, so that pods can use it.
    Load {
        /// The archive, in docker's or OCI's format.
        archive: PathBuf,
    },
    /// Kill a program of the cluster, such as kube-apiserver; it is started again at once.
    Restart {
        /// The program's name.
        unit: String,
    },
    /// Check Services, DNS and NetworkPolicies on the running cluster.
    Verify,
    /// Run a command in the cluster's network, with KUBECONFIG set.
    Exec {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run kubectl against the cluster.
    Kubectl {
        /// kubectl's arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Runs one subcommand.
pub fn run(arguments: Arguments) -> Result<()> {
    let name = arguments.name;
    match arguments.action {
        Action::Up { apiserver_only } => up(&Options { name, apiserver_only }),
        Action::Down => Cluster::down(&name),
        Action::Status => status(&name),
        Action::Load { archive } => Cluster::open(&name)?.load_image(&archive),
        Action::Restart { unit } => Cluster::open(&name)?.restart(&unit),
        Action::Verify => verify::run(&Cluster::open(&name)?),
        Action::Exec { command } => {
            let (program, arguments) = command.split_first().context("there is no command to run")?;
            // Helm is built where it is missing, and then not on the path.
            let program = if program == "helm" { go::helm()?.into() } else { program.clone() };
            replace_with(&Cluster::open(&name)?, &program, arguments)
        }
        Action::Kubectl { arguments } => replace_with(&Cluster::open(&name)?, &"kubectl".into(), &arguments),
    }
}

fn up(options: &Options) -> Result<()> {
    let cluster = Cluster::up(options)?;
    progress::note(format!("cluster {} is up ({:?})", options.name, cluster.mode()));
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    if cluster.mode() == Mode::Node {
        progress::note(
            "its addresses are reached through `cargo xtask cluster exec -- …` and `cargo xtask cluster kubectl …`",
        );
    }
    Ok(())
}

fn status(name: &str) -> Result<()> {
    let cluster = Cluster::open(name)?;
    let mut report =
        format!("cluster {name} is up ({:?}), kubeconfig {}\n", cluster.mode(), cluster.kubeconfig().display());
    if cluster.mode() != Mode::ApiServer {
        report += &cluster.kubectl(&["get", "nodes"])?;
        report += &cluster.kubectl(&["get", "pods", "--all-namespaces"])?;
    }
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(report.as_bytes());
    Ok(())
}

/// Becomes the command, so that signals, the terminal and the exit code are its own.
fn replace_with(cluster: &Cluster, program: &OsString, arguments: &[OsString]) -> Result<()> {
    let error = cluster.command(program)?.args(arguments).exec();
    Err(error).with_context(|| format!("failed to run {}", program.display()))
}
