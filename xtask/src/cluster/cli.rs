//! The subcommands of `cargo xtask cluster`.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::{Cluster, DEFAULT_NAME, Mode, Options, Way, verify};
use crate::tools::{go, progress};

/// `cargo xtask cluster …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the cluster. Clusters with different names do not affect each other.
    #[arg(long, global = true, default_value = DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the cluster and wait until it can run pods.
    Up {
        /// Start only etcd and the API server, for tests of controllers.
        #[arg(long, conflicts_with_all = ["with", "kind_image"])]
        apiserver_only: bool,
        #[command(flatten)]
        way: Way,
    },
    /// Stop the cluster and remove everything it created, also after a crash.
    Down,
    /// Show whether the cluster is up, and what runs in it.
    Status,
    /// Load an image archive into the cluster, so that pods can use it.
    Load {
        /// The archive, in docker or OCI format.
        archive: PathBuf,
    },
    /// Kill a program of the cluster, such as kube-apiserver. It is restarted at once.
    Restart {
        /// Name of the program.
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
        /// Arguments for kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Runs one subcommand.
pub fn run(arguments: Arguments) -> Result<()> {
    let name = arguments.name;
    match arguments.action {
        Action::Up { apiserver_only, way } => up(&Options { name, apiserver_only, way }),
        Action::Down => Cluster::down(&name),
        Action::Status => status(&name),
        Action::Load { archive } => Cluster::open(&name)?.load_image(&archive),
        Action::Restart { unit } => Cluster::open(&name)?.restart(&unit),
        Action::Verify => verify::run(&Cluster::open(&name)?),
        Action::Exec { command } => {
            let (program, arguments) = command.split_first().context("no command was given")?;
            // Where helm is missing it is built, and the result is not on PATH.
            let program = if program == "helm" { go::helm()?.into() } else { program.clone() };
            replace_with(&Cluster::open(&name)?, &program, arguments)
        }
        Action::Kubectl { arguments } => replace_with(&Cluster::open(&name)?, &"kubectl".into(), &arguments),
    }
}

fn up(options: &Options) -> Result<()> {
    let cluster = Cluster::up(options)?;
    progress::note(format!("cluster {} is up ({})", options.name, cluster.mode()));
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    if cluster.mode() == Mode::Node {
        progress::note(
            "to reach its addresses, use `cargo xtask cluster exec -- …` or `cargo xtask cluster kubectl …`",
        );
    }
    Ok(())
}

fn status(name: &str) -> Result<()> {
    let cluster = Cluster::open(name)?;
    let mut report =
        format!("cluster {name} is up ({}), kubeconfig {}\n", cluster.mode(), cluster.kubeconfig().display());
    if cluster.mode() != Mode::ApiServer {
        report += &cluster.kubectl(&["get", "nodes"])?;
        report += &cluster.kubectl(&["get", "pods", "--all-namespaces"])?;
    }
    // A closed pipe, as from `| head`, is not a failure.
    let _ = std::io::stdout().write_all(report.as_bytes());
    Ok(())
}

/// Replaces this process with the command, so that it gets the signals and the terminal, and its exit code is returned.
fn replace_with(cluster: &Cluster, program: &OsString, arguments: &[OsString]) -> Result<()> {
    let error = cluster.command(program)?.args(arguments).exec();
    Err(error).with_context(|| format!("failed to run {}", program.display()))
}
