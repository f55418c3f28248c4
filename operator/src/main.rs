//! `mcp-fleet-operator`: flags, signals, and the end with a reason.

use clap::Parser;
use mcp_fleet_operator::config::Config;
use mcp_fleet_operator::{kubernetes, run, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init();
    // Of two providers in the dependency tree, ours is the one for all of TLS; it can only be set once.
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
        let client = kubernetes::client(kube::Config::infer().await?)?;
        Box::pin(run::run(config, client, stop)).await?;
        Ok(())
    })
}
