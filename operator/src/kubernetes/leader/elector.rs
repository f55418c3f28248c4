//! The loop that takes, renews and releases the Lease.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lease_action::{LeaseAction, Observed, decide};
use crate::kubernetes::FIELD_MANAGER;

/// Name of the Lease.
const LEASE: &str = "mcp-fleet-operator";

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeaderError {
    /// The API server rejected the request or could not be reached.
    #[error("failed to read or write the Lease")]
    Api(#[from] kube::Error),
    /// The API server took longer than a renewal may take.
    #[error("the API server took too long")]
    Timeout,
}

/// Takes part in the election on behalf of one replica.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    duration_seconds: u32,
    renewal: Duration,
    leading: watch::Sender<bool>,
    observed: Option<Observed>,
}

impl Elector {
    /// Takes part in the election in `namespace` as `identity`, which no other replica may use.
    pub fn new(
        client: Client,
        namespace: &str,
        identity: &str,
        duration_seconds: u32,
        leading: watch::Sender<bool>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            duration_seconds,
            renewal: Duration::from_secs(u64::from(duration_seconds)) / 3,
            leading,
            observed: None,
        }
    }

    /// Takes part until `stop`, and then releases the Lease if this replica holds it.
    pub async fn run(mut self, stop: CancellationToken) {
        // A leader steps down before another replica may take over.
        let step_down_after = Duration::from_secs(u64::from(self.duration_seconds)) * 3 / 4;
        let mut renewed = Instant::now();
        loop {
            let started = Instant::now();
            // A renewal that succeeds after another replica could have taken the Lease is worth nothing.
            let limit = if *self.leading.borrow() {
                self.renewal.min(step_down_after.saturating_sub(renewed.elapsed()))
            } else {
                self.renewal
            };
            match self.step(limit).await {
                Ok(true) => {
                    renewed = started;
                    self.lead(true);
                }
                Ok(false) => self.lead(false),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "failed to renew the Lease");
                }
            }
            let leads = *self.leading.borrow();
            if leads && renewed.elapsed() >= step_down_after {
                tracing::error!("stepping down, because the Lease could not be renewed");
                self.lead(false);
            }
            // Followers check more often than leaders renew, so that a released Lease is taken soon.
            let mut pause = if leads { self.renewal } else { self.renewal / 2 };
            if leads {
                pause = pause.min(step_down_after.saturating_sub(renewed.elapsed())).min(self.renewal);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        // The controllers have stopped: the caller waits for them before it cancels.
        if *self.leading.borrow() {
            self.lead(false);
            if let Err(error) = self.release().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to release the Lease");
            }
        }
    }

    fn lead(&self, leads: bool) {
        self.leading.send_if_modified(|before| {
            let changed = *before != leads;
            if changed {
                tracing::info!(identity = %self.identity, leads, "leadership changed");
            }
            *before = leads;
            changed
        });
    }

    /// Reads the Lease, and writes it if it can be renewed or taken. Returns whether this replica holds it now.
    async fn step(&mut self, limit: Duration) -> Result<bool, LeaderError> {
        tokio::time::timeout(limit, self.attempt()).await.map_err(|_| LeaderError::Timeout)?
    }

    async fn attempt(&mut self) -> Result<bool, LeaderError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.into()),
                    namespace: Some(self.namespace.clone()),
                    labels: Some(crate::kubernetes::labels::common("operator")),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(None)),
            };
            return succeeded(self.api.create(&params, &lease).await);
        };
        let now = Instant::now();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let observed = match &self.observed {
            Some(before) if before.resource_version == version => before.clone(),
            _ => Observed { resource_version: version, since: now },
        };
        self.observed = Some(observed.clone());
        match decide(&lease, &self.identity, &observed, now) {
            LeaseAction::Wait => Ok(false),
            LeaseAction::Renew | LeaseAction::Take => {
                let spec = self.claim(lease.spec.as_ref());
                succeeded(self.api.replace(LEASE, &params, &Lease { spec: Some(spec), ..lease }).await)
            }
        }
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration_seconds).ok(),
            acquire_time: if ours { before.and_then(|spec| spec.acquire_time.clone()) } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), LeaderError> {
        let lease = self.api.get(LEASE).await?;
        let Some(spec) = lease.spec.clone().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
        else {
            return Ok(());
        };
        let spec = LeaseSpec { holder_identity: Some(String::new()), ..spec };
        self.api.replace(LEASE, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await?;
        Ok(())
    }
}

/// Returns whether a write succeeded. A conflict is no failure: another replica was faster.
fn succeeded(written: Result<Lease, kube::Error>) -> Result<bool, LeaderError> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
