//! One replica of the operator, from start to end.
//!
//! Every replica serves health, metrics and the control port, and keeps its cache filled. The one that holds the Lease
//! also leads (`lead`), and stops leading at once when it cannot renew. At shutdown it stops leading first and then
//! releases the Lease, so that the next leader starts without a wait.
//!
//! Without the certificate authority that the fleet trusts a replica serves nothing and is not ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use mcp_fleet_admin::Admin;
use mcp_fleet_core::control_server::{self, Alarms as _, Hub};
use mcp_fleet_core::credentials::ca::Authority;
use mcp_fleet_core::metrics::SpendMetrics;
use mcp_fleet_core::progress::Progress;
use mcp_fleet_core::retry::Backoff;
use mcp_fleet_core::shared_state::SharedState;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::audit::Checkpoints;
use crate::config::Config;
use crate::context::{Context, rollout};
use crate::controllers::principal::CredentialExpiry;
use crate::controllers::unreadable::UnreadableObjects;
use crate::credentials::ca;
use crate::credentials::revocation::Revocations;
use crate::credentials::tokens::KeyStore;
use crate::error;
use crate::kubernetes::cache;
use crate::kubernetes::events::Events;
use crate::kubernetes::leader::{Candidacy, Elector, Leadership, Term};
use crate::kubernetes::requests;
use crate::lead::lead_while_elected;
use crate::tasks::ended;
use crate::telemetry::Metrics;

/// Pauses between attempts to load the authority; jitter at most doubles them.
const LOAD_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Why a replica stopped although `stop` was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Two metrics have the same name.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// Nothing listens on the control port.
    #[error(transparent)]
    Control(control_server::ListenError),
    /// The port for health and metrics is not served.
    #[error("failed to serve health and metrics")]
    Admin(#[source] std::io::Error),
    /// The control server has no certificate.
    #[error(transparent)]
    Tls(#[from] control_server::TlsError),
    /// Another certificate authority was accepted while this replica ran.
    #[error("the fleet has another certificate authority now, which a restart loads")]
    OtherAuthority,
}

/// Why the replica is not ready; none if it is.
type Unready = Arc<Mutex<Option<String>>>;

/// Runs one replica until `stop` is cancelled.
pub async fn run(config: Config, client: Client, stop: CancellationToken) -> Result<(), RunError> {
    let config = Arc::new(config);
    let metrics = Metrics::new()?;
    let unready: Unready = Arc::new(Mutex::new(Some("the certificate authority is not loaded yet".into())));
    let shared_state = Arc::new(SharedState::default());
    let progress = shared_state.progress.clone();
    serve_admin(&config, metrics.registry.clone(), Arc::clone(&unready), progress, stop.clone()).await?;
    let events = Events::new(client.clone(), &config.pod_name);
    let authority = tokio::select! {
        authority = load_authority(&config, &client, &events, &metrics, &unready) => authority,
        () = stop.cancelled() => return Ok(()),
    };
    *unready.lock() = Some("the cache is not filled yet".into());
    let tls = control_server::server_config(&authority, config.control_names())?;
    let (cache, watches) = cache::start(&client);
    let watches = tokio::spawn(watches);
    let (elected, leadership) = Leadership::channel();
    let ctx = Arc::new(Context {
        ca: Arc::new(authority),
        keys: KeyStore::new(client.clone(), &config.namespace),
        revocations: Revocations::new(client.clone(), &config.namespace),
        events,
        shared_state,
        cache,
        leadership,
        rollout: Arc::new(rollout(&config, &metrics)?),
        audit: Checkpoints::new(client.clone(), &config.namespace, &metrics.registry)?,
        metrics,
        declared: Arc::default(),
        client,
        config,
    });
    register_collectors(&ctx)?;
    if let Some(requests) = requests::counter() {
        ctx.metrics.registry.register(Box::new(requests))?;
    }
    let serves = serve_gateways(Arc::new(ctx.hub()), ctx.config.listen, tls, stop.clone());
    let mut control_server = tokio::spawn(serves);
    let stopped_early = async {
        stop.cancelled().await;
        // Once the replica is ready it takes part in elections, and has to release the Lease before it ends.
        if unready.lock().is_none() {
            std::future::pending::<()>().await;
        }
    };
    let control_server_failed = async {
        match ended((&mut control_server).await) {
            Some(Err(error)) => error,
            _ => std::future::pending().await,
        }
    };
    let mut outdated = false;
    let leaves_if_outdated = async {
        guard_authority(&ctx).await;
        outdated = true;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = take_part(&ctx, elected, &unready, &stop) => {}
        () = stopped_early => {}
        () = leaves_if_outdated => {}
        error = control_server_failed => return Err(RunError::Control(error)),
    }
    watches.abort();
    // It drains its streams for a moment, since `stop` is cancelled.
    if !control_server.is_finished() {
        let _ = control_server.await;
    }
    if outdated { Err(RunError::OtherAuthority) } else { Ok(()) }
}

/// Serves control streams until `stop`.
async fn serve_gateways(
    hub: Arc<Hub>,
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) -> Result<(), control_server::ListenError> {
    let listener = control_server::listen(address).await?;
    control_server::serve(hub, listener, tls, stop).await;
    Ok(())
}

/// Registers the metrics that are read at every scrape.
pub(crate) fn register_collectors(ctx: &Context) -> Result<(), prometheus::Error> {
    let registry = &ctx.metrics.registry;
    registry.register(Box::new(CredentialExpiry::new(ctx.cache.clone(), ctx.leadership.clone())?))?;
    registry.register(Box::new(UnreadableObjects::new(ctx.cache.clone())?))?;
    registry.register(Box::new(SpendMetrics::new(ctx.shared_state.clone())?))
}

/// Loads the certificate authority, and retries until that succeeds. Raises an alarm if it is lost.
async fn load_authority(
    config: &Config,
    client: &Client,
    events: &Events,
    metrics: &Metrics,
    unready: &Unready,
) -> Authority {
    let mut backoff = Backoff::new(LOAD_PAUSES.0, LOAD_PAUSES.1);
    let mut alarm = None;
    loop {
        match ca::load(client, &config.namespace, Timestamp::now()).await {
            Ok(authority) => {
                metrics.ca_problem.set(0);
                return authority;
            }
            Err(error) if error.is_alarm() => {
                metrics.ca_problem.set(1);
                let note = error::chain(&error);
                if alarm.as_ref() != Some(&note) {
                    tracing::error!(note, "there is no certificate authority; nothing is served");
                    let secret = ca::reference(&config.namespace);
                    events.alarm(&secret, "CertificateAuthorityLost", "Load", note.clone()).await;
                    *unready.lock() = Some(note.clone());
                    alarm = Some(note);
                }
            }
            Err(error) => {
                tracing::warn!(error = error::chain(&error), "failed to load the certificate authority; trying again");
            }
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Guards the Secret of the certificate authority. Returns once the fleet has another authority.
async fn guard_authority(ctx: &Context) {
    let guard = ca::Guard {
        client: &ctx.client,
        namespace: &ctx.config.namespace,
        authority: &ctx.ca,
        leadership: &ctx.leadership,
        events: &ctx.events,
        metrics: &ctx.metrics,
    };
    guard.run().await;
}

/// Serves health and metrics until `stop`. A follower is ready too, or a rolling update would wait forever. A replica is
/// alive while its main loops make progress: without the API server they do too, and a restart would not help.
async fn serve_admin(
    config: &Config,
    registry: Registry,
    unready: Unready,
    progress: Progress,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let listener = mcp_fleet_admin::listen(config.metrics_listen).await.map_err(RunError::Admin)?;
    let ready = move || unready.lock().clone().map_or(Ok(()), |why| Err(why.into()));
    let admin = Admin { alive: Box::new(move || progress.check()), ready: Box::new(ready), registry };
    tokio::spawn(mcp_fleet_admin::serve(listener, admin, stop));
    Ok(())
}

/// Waits for the cache, then takes part in elections and leads whenever this replica is elected, until `stop`.
async fn take_part(
    ctx: &Arc<Context>,
    elected: tokio::sync::watch::Sender<Option<Term>>,
    unready: &Unready,
    stop: &CancellationToken,
) {
    if !ctx.cache.wait_until_filled().await {
        return;
    }
    tracing::info!("the cache is filled; this replica is ready");
    *unready.lock() = None;
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
