//! The process: starts everything, and ends it in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mcp_fleet_admin::Admin;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::audit::Audit;
use super::connection;
use super::control::{self, Control};
use super::state::State;
use super::upstream::Dialer;
use super::workers::Workers;
use crate::tls::{Identity, server_config_plain};

/// How long the endpoints of the Service may take to forget a gateway that goes away.
const LAME: Duration = Duration::from_millis(500);
/// How long calls in flight may take to end.
const DRAIN: Duration = Duration::from_secs(25);
/// How often the certificate files are looked at.
const FOLLOW: Duration = Duration::from_secs(30);
/// How often idle connections are looked at.
const TIDY: Duration = Duration::from_secs(10);

/// How the gateway is started.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where agents connect: TLS.
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where metrics and health are asked for: no TLS.
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub metrics_listen: SocketAddr,
    /// The mounted Secret with tls.crt, tls.key and ca.crt; read again when it changes.
    #[arg(long, default_value = "/var/run/mcp-fleet/tls")]
    pub tls_dir: PathBuf,
    /// The way to the operator.
    #[command(flatten)]
    pub control: control::Args,
}

/// Runs the gateway until it is told to end (SIGTERM, SIGINT) and has ended. Logging is set up by the caller.
pub fn run(args: Args) -> anyhow::Result<()> {
    // For what belongs to no connection: accepting, the control stream, health and metrics.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("failed to start the asynchronous runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let identity = Identity::load(&args.tls_dir).context("failed to load the gateway's certificate")?;
    let tls = server_config_plain(Arc::clone(&identity)).context("failed to prepare TLS")?;
    // Locking standard output for each write would buy nothing: the audit thread is its only writer.
    let audit = Audit::start(std::io::stdout()).context("failed to start the audit thread")?;
    let control = Control::new(&args.control, &args.tls_dir.join("ca.crt"));
    let state = State::new(control.leases(), Dialer::Mutual(Arc::clone(&identity)), audit.clone())
        .context("failed to register metrics")?;

    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("failed to listen on {}", args.listen))?;
    let health = TcpListener::bind(args.metrics_listen)
        .await
        .with_context(|| format!("failed to listen on {}", args.metrics_listen))?;
    info!(listen = %args.listen, metrics = %args.metrics_listen, "gateway started");

    tokio::spawn(Arc::clone(&identity).follow(FOLLOW));
    tokio::spawn(mcp_fleet_admin::serve(health, admin(&state), CancellationToken::new()));
    tokio::spawn(tidy(Arc::clone(&state)));
    let stop_control = CancellationToken::new();
    let controlled = tokio::spawn(control.run(Arc::clone(&state), stop_control.clone()));
    let workers = Workers::start().context("failed to start the threads that serve calls")?;
    tokio::spawn(connection::listen(listener, tls, workers, Arc::clone(&state)));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("draining");
    state.drain();
    tokio::time::sleep(LAME).await;
    state.close();
    let deadline = Instant::now() + DRAIN;
    while state.active() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if state.active() > 0 {
        warn!(calls = state.active(), "calls in flight did not end in time");
    }
    stop_control.cancel();
    if let Err(error) = controlled.await {
        warn!(%error, "the control part ended badly");
    }
    tokio::task::spawn_blocking(move || audit.close()).await.context("failed to write the rest of the audit record")?;
    info!("gateway ended");
    Ok(())
}

/// The probes and metrics of this gateway.
fn admin(state: &Arc<State>) -> Admin {
    // Every call is denied until the process is restarted: have the kubelet do it.
    let auditing = |state: &State| match state.audit.is_broken() {
        true => Err("the audit trail cannot be written".into()),
        false => Ok(()),
    };
    let (alive, ready) = (Arc::clone(state), Arc::clone(state));
    Admin {
        alive: Box::new(move || auditing(&alive)),
        ready: Box::new(move || {
            auditing(&ready)?;
            if ready.ready() { Ok(()) } else { Err("no fresh policy, or draining".into()) }
        }),
        registry: state.metrics().registry().clone(),
    }
}

async fn tidy(state: Arc<State>) {
    let mut ticks = tokio::time::interval(TIDY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.tidy();
    }
}
