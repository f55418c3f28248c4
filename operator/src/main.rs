//! `mcp-fleet-operator`: reads the flags, runs one replica, and stops it on SIGTERM or SIGINT.

use clap::Parser;
use mcp_fleet_operator::config::Config;
use mcp_fleet_operator::kubernetes::client::client;
use mcp_fleet_operator::{run, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init();
    // The dependencies contain two TLS providers, so the one to use has to be set. It can be set only once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let stop = CancellationToken::new();
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            stopping.cancel();
        });
        let client = client().await?;
        Box::pin(run::run(config, client, stop)).await?;
        Ok(())
    })
}
