//! Benchmarks of the gateway, which compare calls through it with calls that bypass it, and of the operator.
//!
//! - [`bench`]: plan and report of a run, started by `cargo xtask bench gateway`. Start reading here.
//! - [`fleet`]: the benchmark of the operator, started by `cargo xtask bench fleet`.
//! - [`load`]: the closed loop that makes calls and measures them.
//! - [`role`]: the measured programs. Each runs in a separate process, to measure its CPU time and memory separately.
//! - [`setup`]: keys, policy, token and operator, as a gateway finds them in a cluster.

mod bench;
mod fleet;
mod load;
mod process;
mod role;
mod setup;

use clap::Parser;
use tokio::runtime::Builder;

/// Benchmarks of the gateway and of the operator.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare calls made directly, through a pass-through proxy, and through the gateway with a full policy.
    Gateway(bench::Args),
    /// Measure how fast a fleet converges, and what that costs.
    Fleet(fleet::Args),
    /// Run one of the measured programs. The benchmark starts these.
    #[command(hide = true, subcommand)]
    Serve(role::Role),
}

fn main() -> anyhow::Result<()> {
    let Cli { command } = Cli::parse();
    match command {
        // One thread makes the load, so that the measurements do not include switches between its threads.
        Command::Gateway(args) => Builder::new_current_thread().enable_all().build()?.block_on(bench::run(&args)),
        Command::Fleet(args) => {
            Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(fleet::run(&args))
        }
        Command::Serve(role) => {
            let mut builder = Builder::new_multi_thread();
            if let Some(threads) = role.threads() {
                builder.worker_threads(threads);
            }
            builder.enable_all().build()?.block_on(role::serve(role))
        }
    }
}
