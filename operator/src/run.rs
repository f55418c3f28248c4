//! One replica of the operator, from its start to its end.
//!
//! Every replica serves health, metrics and the control port, and keeps its stores filled. The one that holds the
//! Lease leads: it runs the controllers, the compiler and the ledger, and stops all of them at once when it cannot
//! renew. At shutdown they stop first, then the Lease is released, so that the next leader starts without a wait.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::Context;
use crate::control_server;
use crate::controllers;
use crate::controllers::budget::{self, Budgets, SpendMetrics};
use crate::controllers::principal::{CredentialExpiry, Principals};
use crate::controllers::scope::Scopes;
use crate::controllers::server::Servers;
use crate::controllers::tenant::Tenants;
use crate::credentials::ca::{self, Authority};
use crate::credentials::revocation::Revocations;
use crate::credentials::tokens::KeyStore;
use crate::health::{self, Readiness};
use crate::kubernetes::cache;
use crate::kubernetes::events::Events;
use crate::kubernetes::leader::{Elector, Leadership};
use crate::ledger;
use crate::policy::publish;
use crate::retry::jittered;
use crate::shared_state::SharedState;
use crate::telemetry::Metrics;

/// The pause before something that every replica needs is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How long gateways may take to find a new leader before their absence is reported.
const SETTLE: Duration = Duration::from_secs(8);

/// How long streams may take to end.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a replica cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The metrics contradict each other.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The control port cannot be served.
    #[error(transparent)]
    Control(control_server::ServeError),
    /// The health port cannot be served.
    #[error("failed to serve health and metrics")]
    Health(#[source] std::io::Error),
    /// The control server's certificate cannot be made or used.
    #[error(transparent)]
    Tls(#[from] control_server::TlsError),
}

/// Runs until `stop`.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> Result<(), RunError> {
    let config = Arc::new(config);
    let (metrics, ready) = (Metrics::new()?, Readiness::default());
    let mut health = tokio::spawn(health::serve(config.metrics_listen, metrics.clone(), ready.clone(), stop.clone()));
    let Some(authority) = authority(&client, &config, &stop).await else { return Ok(()) };
    let (cache, watches) = cache::run(&client);
    let watches = tokio::spawn(watches);
    let (leading, leadership) = Leadership::channel();
    metrics.registry.register(Box::new(CredentialExpiry::new(cache.clone(), leadership.clone())?))?;
    let tls = control_server::server_config(&authority, &config)?;
    let ctx = Arc::new(Context {
        ca: Arc::new(authority),
        keys: KeyStore::new(client.clone(), &config.namespace),
        revocations: Revocations::new(client.clone(), &config.namespace),
        events: Events::new(client.clone(), &config.pod_name),
        shared_state: Arc::new(SharedState::default()),
        cache,
        leadership,
        metrics,
        client: client.clone(),
        config: config.clone(),
    });
    ctx.metrics.registry.register(Box::new(SpendMetrics::new(ctx.shared_state.clone())?))?;
    let mut served = tokio::spawn(control_server::serve(ctx.clone(), tls, stop.clone()));
    let lease_ends = CancellationToken::new();
    let serve = async {
        if !ctx.cache.filled().await {
            return;
        }
        tracing::info!("the stores are filled; this replica is ready");
        ready.set();
        let elector = Elector::new(client, &config.namespace, &config.pod_name, config.lease_seconds, leading);
        let elector = tokio::spawn(elector.run(lease_ends.clone()));
        Box::pin(follow(&ctx, &stop)).await;
        lease_ends.cancel();
        if elector.await.is_err() {
            tracing::warn!("the election ended badly");
        }
    };
    let broken = async {
        tokio::select! {
            Ok(Err(error)) = &mut served => RunError::Control(error),
            Ok(Err(error)) = &mut health => RunError::Health(error),
            else => std::future::pending().await,
        }
    };
    tokio::select! {
        () = serve => {}
        error = broken => return Err(error),
        // Before the stores are filled there is no Lease to release.
        () = async { stop.cancelled().await; if ready.get() { std::future::pending::<()>().await; } } => {}
    }
    watches.abort();
    // Streams end with `stop`; whoever still hangs on is left behind.
    if !served.is_finished() {
        let _ = tokio::time::timeout(DRAIN, served).await;
    }
    Ok(())
}

/// Leads whenever this replica may; ends at `stop`.
async fn follow(ctx: &Arc<Context>, stop: &CancellationToken) {
    let mut leadership = ctx.leadership.watch();
    loop {
        let leads = *leadership.borrow_and_update();
        ctx.metrics.leader.set(i64::from(leads));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = lead(ctx), if leads => {}
        }
        // What was known here grows old while another leads.
        ctx.shared_state.clear();
    }
}

/// Everything that only the leader does; it never ends by itself, and stops where it is when dropped.
async fn lead(ctx: &Arc<Context>) {
    // Before anything is compiled: a revocation must never be forgotten.
    while let Err(error) = ctx.revocations.load().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to load the revocations");
        tokio::time::sleep(jittered(TRY_AGAIN)).await;
    }
    ctx.shared_state.set_settling(true);
    tokio::join!(
        async {
            tokio::time::sleep(SETTLE).await;
            ctx.shared_state.set_settling(false);
        },
        controllers::run::<Tenants>(ctx.clone()),
        controllers::run::<Servers>(ctx.clone()),
        controllers::run::<Principals>(ctx.clone()),
        cache::watch_secrets(ctx.client.clone(), ctx.config.namespace.clone(), ctx.cache.clone()),
        serve_gateways(ctx),
        budget::run(ctx.clone()),
        controllers::run::<Budgets>(ctx.clone()),
        controllers::run::<Scopes>(ctx.clone()),
    );
}

/// Reads the ledger, then publishes policies and keeps the ledger. While this runs, gateways are served.
async fn serve_gateways(ctx: &Arc<Context>) {
    let ledger = ledger::open(ctx.client.clone(), &ctx.config.namespace).await;
    let _leading = ctx.shared_state.policies.lead(Arc::clone(&ledger));
    tokio::join!(publish::run(ctx.clone()), ledger::keep(&ledger), control_server::reap(ctx, &ledger));
}

/// The authority, tried until it is there or `stop`.
async fn authority(client: &Client, config: &Config, stop: &CancellationToken) -> Option<Authority> {
    loop {
        match ca::load_or_create(client, &config.namespace, Timestamp::now()).await {
            Ok(authority) => return Some(authority),
            Err(error) => {
                tracing::warn!(error = crate::error::chain(&error), "failed to load the certificate authority");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(jittered(TRY_AGAIN)) => {}
        }
    }
}
