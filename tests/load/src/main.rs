//! Benchmark of the gateway: compares calls through the gateway with calls that bypass it.
//!
//! - [`bench`]: plan and report of a run, started by `cargo xtask bench gateway`. Start reading here.
//! - [`load`]: the closed loop that makes calls and measures them.
//! - [`role`]: the measured programs. Each runs in a separate process, to measure its CPU time and memory separately.
//! - [`setup`]: keys, policy, token and operator, as a gateway finds them in a cluster.

mod bench;
mod load;
mod process;
mod role;
mod setup;

use clap::Parser;
use tokio::runtime::Builder;

/// Benchmark of the gateway.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare calls made directly, through a pass-through proxy, and through the gateway with a full policy.
    Gateway(bench::Args),
    /// Run one of the measured programs. The benchmark starts these.
    #[command(hide = true, subcommand)]
    Serve(role::Role),
}

fn main() -> anyhow::Result<()> {
    let Cli { command } = Cli::parse();
    match command {
        // One thread makes the load, so that the measurements do not include switches between its threads.
        Command::Gateway(args) => Builder::new_current_thread().enable_all().build()?.block_on(bench::run(&args)),
        Command::Serve(role) => {
            let mut builder = Builder::new_multi_thread();
            if let Some(threads) = role.threads() {
                builder.worker_threads(threads);
            }
            builder.enable_all().build()?.block_on(role::serve(role))
        }
    }
}
