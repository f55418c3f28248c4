//! What a call through the gateway costs, beside a call without it.
//!
//! - [`bench`]: the plan of a run and its report; `cargo xtask bench gateway` calls it.
//! - [`load`]: the closed loop that makes the calls, and what it measures.
//! - [`role`]: the processes that are measured, each by itself so that its CPU and memory are its own.
//! - [`setup`]: keys, policy, token and an operator, as the gateway finds them in a cluster.

mod bench;
mod load;
mod process;
mod role;
mod setup;

use clap::Parser;
use tokio::runtime::Builder;

/// Load on the gateway.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compares calls made directly, through a pass-through proxy, and through the gateway with full policy.
    Gateway(bench::Args),
    /// One of the measured processes; started by the bench.
    #[command(hide = true, subcommand)]
    Serve(role::Role),
}

fn main() -> anyhow::Result<()> {
    let Cli { command } = Cli::parse();
    match command {
        // The load is made on one thread: what it measures is not the way between its own threads.
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
