//! One replica of the operator, from start to end.
//!
//! Every replica serves health, metrics and the control port, and keeps its cache filled. The one that holds the Lease
//! also leads (`lead`), and stops leading at once when it cannot renew. At shutdown it stops leading first and then
//! releases the Lease, so that the next leader starts without a wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use mcp_fleet_admin::Admin;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::Context;
use crate::control_server;
use crate::controllers::budget::SpendMetrics;
use crate::controllers::principal::CredentialExpiry;
use crate::controllers::unreadable::UnreadableObjects;
use crate::credentials::ca;
use crate::credentials::revocation::Revocations;
use crate::credentials::tokens::KeyStore;
use crate::kubernetes::cache;
use crate::kubernetes::events::Events;
use crate::kubernetes::leader::{Candidacy, Elector, Leadership};
use crate::kubernetes::requests;
use crate::lead::lead_while_elected;
use crate::progress::Progress;
use crate::retry::until_success;
use crate::shared_state::SharedState;
use crate::tasks::ended;
use crate::telemetry::Metrics;

/// How long open control streams may take to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a replica stopped although `stop` was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Two metrics have the same name.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The control port is not served.
    #[error(transparent)]
    Control(control_server::ServeError),
    /// The port for health and metrics is not served.
    #[error("failed to serve health and metrics")]
    Admin(#[source] std::io::Error),
    /// The control server has no certificate.
    #[error(transparent)]
    Tls(#[from] control_server::TlsError),
}

/// Runs one replica until `stop` is cancelled.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> Result<(), RunError> {
    let config = Arc::new(config);
    let metrics = Metrics::new()?;
    let (ready, shared_state) = (Arc::new(AtomicBool::new(false)), Arc::new(SharedState::default()));
    let progress = shared_state.progress.clone();
    serve_admin(&config, metrics.registry.clone(), Arc::clone(&ready), progress, stop.clone()).await?;
    let load_authority = async || ca::load_or_create(&client, &config.namespace, Timestamp::now()).await;
    let authority = tokio::select! {
        authority = until_success("load the certificate authority", load_authority) => authority,
        () = stop.cancelled() => return Ok(()),
    };
    let tls = control_server::server_config(&authority, &config)?;
    let (cache, watches) = cache::start(&client);
    let watches = tokio::spawn(watches);
    let (elected, leadership) = Leadership::channel();
    let ctx = Arc::new(Context {
        ca: Arc::new(authority),
        keys: KeyStore::new(client.clone(), &config.namespace),
        revocations: Revocations::new(client.clone(), &config.namespace),
        events: Events::new(client.clone(), &config.pod_name),
        shared_state,
        cache,
        leadership,
        metrics,
        client,
        config,
    });
    let registry = &ctx.metrics.registry;
    registry.register(Box::new(CredentialExpiry::new(ctx.cache.clone(), ctx.leadership.clone())?))?;
    registry.register(Box::new(UnreadableObjects::new(ctx.cache.clone())?))?;
    if let Some(requests) = requests::counter() {
        registry.register(Box::new(requests))?;
    }
    registry.register(Box::new(SpendMetrics::new(ctx.shared_state.clone())?))?;
    let mut control_server = tokio::spawn(control_server::serve(ctx.clone(), tls, stop.clone()));
    let stopped_early = async {
        stop.cancelled().await;
        // Once the replica is ready it takes part in elections, and has to release the Lease before it ends.
        if ready.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    };
    let control_server_failed = async {
        match ended((&mut control_server).await) {
            Some(Err(error)) => error,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = take_part(&ctx, elected, &ready, &stop) => {}
        () = stopped_early => {}
        error = control_server_failed => return Err(RunError::Control(error)),
    }
    watches.abort();
    // It drains its streams, since `stop` is cancelled. Streams that take longer are cut off.
    if !control_server.is_finished() {
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, control_server).await;
    }
    Ok(())
}

/// Serves health and metrics until `stop`. A follower is ready too, or a rolling update would wait forever. A replica is
/// alive while its main loops make progress: without the API server they do too, and a restart would not help.
async fn serve_admin(
    config: &Config,
    registry: Registry,
    ready: Arc<AtomicBool>,
    progress: Progress,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let listener = TcpListener::bind(config.metrics_listen).await.map_err(RunError::Admin)?;
    let ready = move || if ready.load(Ordering::Acquire) { Ok(()) } else { Err("the cache is not filled yet".into()) };
    let admin = Admin { alive: Box::new(move || progress.check()), ready: Box::new(ready), registry };
    tokio::spawn(mcp_fleet_admin::serve(listener, admin, stop));
    Ok(())
}

/// Waits for the cache, then takes part in elections and leads whenever this replica is elected, until `stop`.
async fn take_part(
    ctx: &Arc<Context>,
    elected: tokio::sync::watch::Sender<bool>,
    ready: &AtomicBool,
    stop: &CancellationToken,
) {
    if !ctx.cache.wait_until_filled().await {
        return;
    }
    tracing::info!("the cache is filled; this replica is ready");
    ready.store(true, Ordering::Release);
    let Config { namespace, pod_name, lease_seconds, .. } = &*ctx.config;
    let candidacy = Candidacy::default();
    let elector = Elector::new(ctx.client.clone(), namespace, pod_name, *lease_seconds, elected, &candidacy)
        .observed_as(ctx.shared_state.progress.observe("the election"));
    let leave_election = CancellationToken::new();
    let election = tokio::spawn(elector.run(leave_election.clone()));
    Box::pin(lead_while_elected(ctx, &candidacy, stop)).await;
    leave_election.cancel();
    ended(election.await);
}
