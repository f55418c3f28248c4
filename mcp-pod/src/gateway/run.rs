//! The gateway process: starts everything, and stops it in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mcp_fleet_admin::Admin;
use mcp_fleet_policy::units::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::audit::Audit;
use super::connection;
use super::control::{self, Control};
use super::memory::{self, Memory};
use super::state::State;
use super::upstream::Dialer;
use super::workers::Workers;
use crate::tls::{Identity, PublicNames, server_config_by_name, server_config_mutual};

/// How long Services may take to remove a stopping gateway from their endpoints.
const ENDPOINT_GRACE: Duration = Duration::from_millis(500);
/// How long a call waits until its audit line is written, or for room for it, before it is denied.
const AUDIT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long calls in flight may take to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// Interval between checks of the certificate files.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(30);
/// Interval between attempts to listen for other gateways.
const BIND_INTERVAL: Duration = Duration::from_secs(5);
/// Interval between checks for idle connections to tool servers.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);

/// Arguments of the gateway.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address for agents, with TLS.
    #[arg(long, default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// Address for other gateways of the tenant, with mutual TLS: they forward the requests of principals whose home this
    /// gateway is.
    #[arg(long, default_value = "[::]:8444")]
    pub peer_listen: SocketAddr,
    /// Address for health probes and metrics, without TLS.
    #[arg(long, default_value = "[::]:9090")]
    pub metrics_listen: SocketAddr,
    /// The mounted Secret with tls.crt, tls.key and ca.crt; read again when it changes.
    #[arg(long, default_value = "/var/run/mcp-fleet/tls")]
    pub tls_dir: PathBuf,
    /// The mounted Secret with the tls.crt and tls.key of the tenant's public name; read again when it changes. It may be
    /// missing.
    #[arg(long, default_value = "/var/run/mcp-fleet/public-tls")]
    pub public_tls_dir: PathBuf,
    /// Memory that clients and their calls may use, such as 128Mi. Connections and requests that do not fit are refused.
    /// The process needs more than this: about 20 MiB for itself, and as much again as the budget for socket buffers in
    /// the kernel and for what the allocator does not give back. The default is half of the container's memory limit, or
    /// 128Mi if there is none.
    #[arg(long)]
    pub memory_budget: Option<Bytes>,
    /// Connection to the operator.
    #[command(flatten)]
    pub control: control::Args,
}

/// Runs the gateway until SIGTERM or SIGINT, then drains it. The caller sets up logging.
pub fn run(args: Args) -> anyhow::Result<()> {
    // Runs what belongs to no connection: accepting, the control stream, health and metrics.
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
    let names = PublicNames::new(&args.public_tls_dir);
    let tls = server_config_by_name(Arc::clone(&identity), Arc::clone(&names)).context("failed to prepare TLS")?;
    // The audit thread is the only writer of standard output, so it need not hold its lock.
    let audit = Audit::start(std::io::stdout(), AUDIT_TIMEOUT).context("failed to start the audit thread")?;
    let control = Control::new(&args.control, &args.tls_dir.join("ca.crt"));
    let budget = args.memory_budget.unwrap_or_else(memory::default_budget);
    let dialer = Dialer::Mutual(Arc::clone(&identity));
    let state = State::new(control.leases(), dialer, audit.clone(), Memory::new(budget), Arc::clone(&names))
        .context("failed to register metrics")?;

    let listener =
        mcp_fleet_admin::listen(args.listen).await.with_context(|| format!("failed to listen on {}", args.listen))?;
    let health = mcp_fleet_admin::listen(args.metrics_listen)
        .await
        .with_context(|| format!("failed to listen on {}", args.metrics_listen))?;
    info!(listen = %args.listen, peers = %args.peer_listen, metrics = %args.metrics_listen, %budget, "gateway started");

    tokio::spawn(Arc::clone(&identity).follow(CERTIFICATE_INTERVAL));
    tokio::spawn(names.follow(CERTIFICATE_INTERVAL));
    tokio::spawn(mcp_fleet_admin::serve(health, admin(&state), CancellationToken::new()));
    tokio::spawn(tidy(Arc::clone(&state)));
    let stop_control = CancellationToken::new();
    let control_task = tokio::spawn(control.run(Arc::clone(&state), stop_control.clone()));
    let workers = Workers::start().context("failed to start the threads that serve calls")?;
    tokio::spawn(connection::listen(listener, tls, workers.clone(), Arc::clone(&state)));
    tokio::spawn(serve_peers(args.peer_listen, identity, workers, Arc::clone(&state)));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("draining");
    state.drain();
    tokio::time::sleep(ENDPOINT_GRACE).await;
    state.close();
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    while state.active() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if state.active() > 0 {
        warn!(calls = state.active(), "calls in flight did not end in time");
    }
    stop_control.cancel();
    if let Err(error) = control_task.await {
        warn!(%error, "the control stream task failed");
    }
    state.record_floods().await;
    tokio::task::spawn_blocking(move || audit.close()).await.context("failed to write the last audit lines")?;
    info!("gateway ended");
    Ok(())
}

/// Serves requests that other gateways forward, once there are others. A gateway that cannot do that serves its own clients.
async fn serve_peers(address: SocketAddr, identity: Arc<Identity>, workers: Workers, state: Arc<State>) {
    // Only a gateway of the same tenant has the same name.
    let tls = match identity.uri().and_then(|name| server_config_mutual(Arc::clone(&identity), &name)) {
        Ok(tls) => tls,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "other gateways cannot forward requests to this one: it has no name");
            return;
        }
    };
    state.peers.wait().await;
    let mut is_first = true;
    let listener = loop {
        match mcp_fleet_admin::listen(address).await {
            Ok(listener) => break listener,
            Err(error) if is_first => {
                warn!(%error, %address, "other gateways cannot forward requests to this one while its port is not free");
            }
            Err(_) => {}
        }
        is_first = false;
        tokio::time::sleep(BIND_INTERVAL).await;
    };
    state.metrics.forwarded.set_listener_up(true);
    connection::listen_peers(listener, tls, workers, Arc::clone(&state)).await;
    state.metrics.forwarded.set_listener_up(false);
}

/// Returns the probes and metrics of the gateway.
fn admin(state: &Arc<State>) -> Admin {
    // A broken audit sink denies every call until the process restarts, so the kubelet has to restart it.
    let auditing = |state: &State| {
        if state.audit.is_broken() { Err("the audit trail cannot be written".into()) } else { Ok(()) }
    };
    let (alive, ready) = (Arc::clone(state), Arc::clone(state));
    Admin {
        alive: Box::new(move || auditing(&alive)),
        ready: Box::new(move || {
            auditing(&ready)?;
            if ready.ready() { Ok(()) } else { Err("no fresh policy, or draining".into()) }
        }),
        registry: state.registry().clone(),
    }
}

/// Closes idle connections and drops state that is out of date, again and again.
async fn tidy(state: Arc<State>) {
    let mut ticks = tokio::time::interval(TIDY_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.prune();
        state.sweep_breakers();
        state.watch_upstreams();
    }
}
