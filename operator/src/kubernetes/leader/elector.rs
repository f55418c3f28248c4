//! The loop that takes, renews and releases the Lease.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use mcp_fleet_core::progress::ObservedLoop;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lease_action::{LeaseAction, Observed, decide};
use super::{Candidacy, Term};
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
    /// Kubernetes promises that they are increasing numbers.
    #[error("the resourceVersion of the Lease is {0:?}, not a number")]
    Version(String),
}

/// Takes part in the election on behalf of one replica.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    duration_seconds: u32,
    renewal: Duration,
    leading: watch::Sender<Option<Term>>,
    candidate: watch::Receiver<bool>,
    observed: Option<Observed>,
    observed_loop: Option<ObservedLoop>,
}

impl Elector {
    /// Takes part in the election in `namespace` as `identity`, which no other replica may use, while `candidacy` lasts.
    pub fn new(
        client: Client,
        namespace: &str,
        identity: &str,
        duration_seconds: u32,
        leading: watch::Sender<Option<Term>>,
        candidacy: &Candidacy,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity: identity.to_owned(),
            duration_seconds,
            renewal: Duration::from_secs(u64::from(duration_seconds)) / 3,
            leading,
            candidate: candidacy.watch(),
            observed: None,
            observed_loop: None,
        }
    }

    /// Reports the progress of the loop.
    pub(crate) fn observed_as(self, observed_loop: ObservedLoop) -> Self {
        Self { observed_loop: Some(observed_loop), ..self }
    }

    /// Takes part until `stop`, and then releases the Lease if this replica holds it.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            if let Some(observed_loop) = &self.observed_loop {
                observed_loop.report();
            }
            let is_candidate = *self.candidate.borrow_and_update();
            if is_candidate {
                self.renew_or_take(&mut renewed).await;
            } else {
                self.step_down().await;
            }
            let leads = self.leading.borrow().is_some();
            // Followers check more often than leaders renew, so that a released Lease is taken soon.
            let mut pause = if leads { self.renewal } else { self.renewal / 2 };
            if leads {
                pause = pause.min(self.step_down_after().saturating_sub(renewed.elapsed())).min(self.renewal);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.candidate.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        // The controllers have stopped: the caller waits for them before it cancels.
        self.step_down().await;
    }

    /// Returns how long a leader may go without a renewal. It steps down before another replica may take over.
    fn step_down_after(&self) -> Duration {
        Duration::from_secs(u64::from(self.duration_seconds)) * 3 / 4
    }

    /// Renews or takes the Lease, if this replica may. `renewed` is when that last succeeded.
    async fn renew_or_take(&mut self, renewed: &mut Instant) {
        let (started, step_down_after) = (Instant::now(), self.step_down_after());
        // A renewal that succeeds after another replica could have taken the Lease is worth nothing.
        let limit = if self.leading.borrow().is_some() {
            self.renewal.min(step_down_after.saturating_sub(renewed.elapsed()))
        } else {
            self.renewal
        };
        match self.step(limit).await {
            Ok(Some(term)) => {
                *renewed = started;
                self.lead(Some(term));
            }
            Ok(None) => self.lead(None),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to renew the Lease");
            }
        }
        if self.leading.borrow().is_some() && renewed.elapsed() >= step_down_after {
            tracing::error!("stepping down, because the Lease could not be renewed");
            self.lead(None);
        }
    }

    /// Stops leading, and releases the Lease. If that fails, the Lease expires.
    async fn step_down(&self) {
        if self.leading.borrow().is_none() {
            return;
        }
        self.lead(None);
        let released = tokio::time::timeout(self.renewal, self.release()).await;
        if let Err(error) = released.unwrap_or(Err(LeaderError::Timeout)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to release the Lease");
        }
    }

    /// Begins or ends a term. A term that has begun keeps its number.
    fn lead(&self, term: Option<Term>) {
        self.leading.send_if_modified(|before| {
            let (leads, changed) = (term.is_some(), before.is_some() != term.is_some());
            if changed {
                tracing::info!(identity = %self.identity, leads, "leadership changed");
                *before = term;
            }
            changed
        });
    }

    /// Reads the Lease, and writes it if it can be renewed or taken. Returns the term that would begin now
    /// if this replica holds it.
    async fn step(&mut self, limit: Duration) -> Result<Option<Term>, LeaderError> {
        tokio::time::timeout(limit, self.attempt()).await.map_err(|_| LeaderError::Timeout)?
    }

    async fn attempt(&mut self) -> Result<Option<Term>, LeaderError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.into()),
                    namespace: Some(self.namespace.clone()),
                    labels: Some(mcp_fleet_core::labels::common("operator")),
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
            LeaseAction::Wait => Ok(None),
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

/// Returns the version that was written, or none if the write failed because another replica was faster.
fn succeeded(written: Result<Lease, kube::Error>) -> Result<Option<Term>, LeaderError> {
    match written {
        Ok(lease) => {
            let version = lease.metadata.resource_version.unwrap_or_default();
            version.parse().map(Some).map_err(|_| LeaderError::Version(version))
        }
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::super::Leadership;
    use super::*;

    /// An API server that holds one Lease.
    #[derive(Clone, Default)]
    struct LeaseApi(Arc<Mutex<Option<Value>>>);

    impl LeaseApi {
        fn client(&self) -> Client {
            let api = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let api = api.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect_bytes().await.unwrap();
                    let (status, answer) = api.answer(&head.method, serde_json::from_slice(&body).ok());
                    let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                    Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
                }
            });
            Client::new(service, "default")
        }

        fn answer(&self, method: &Method, body: Option<Value>) -> (StatusCode, Value) {
            let mut lease = self.0.lock();
            let failure = |code: u16, reason: &str| {
                let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
                (StatusCode::from_u16(code).unwrap(), status)
            };
            if *method == Method::GET {
                return lease.clone().map_or_else(|| failure(404, "NotFound"), |lease| (StatusCode::OK, lease));
            }
            let mut written = body.unwrap();
            let version = lease.as_ref().map_or(json!(null), |lease| lease["metadata"]["resourceVersion"].clone());
            if written["metadata"]["resourceVersion"] != version {
                return failure(409, "Conflict");
            }
            let next = version.as_str().map_or(1, |version| version.parse::<u32>().unwrap() + 1);
            written["metadata"]["resourceVersion"] = json!(next.to_string());
            *lease = Some(written.clone());
            (StatusCode::OK, written)
        }

        fn holder(&self) -> Option<String> {
            self.0.lock().as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
        }
    }

    fn start(api: &LeaseApi, name: &str, candidacy: &Candidacy) -> watch::Receiver<Option<Term>> {
        let (sender, leadership) = Leadership::channel();
        let elector = Elector::new(api.client(), "default", name, 6, sender, candidacy);
        tokio::spawn(elector.run(CancellationToken::new()));
        leadership.watch()
    }

    /// Returns the term, if it leads then.
    async fn becomes(leadership: &mut watch::Receiver<Option<Term>>, leads: bool) -> Option<Term> {
        let changed = leadership.wait_for(|now| now.is_some() == leads);
        *tokio::time::timeout(Duration::from_mins(5), changed).await.expect("leadership did not change").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_withdraws_hands_over_until_it_runs_again() {
        let api = LeaseApi::default();
        let (sick, healthy) = (Candidacy::default(), Candidacy::default());
        let mut first = start(&api, "first", &sick);
        let first_term = becomes(&mut first, true).await;
        let mut second = start(&api, "second", &healthy);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(*first.borrow(), first_term, "a renewal begins no term");
        assert!(second.borrow().is_none());

        let withdrawn = tokio::time::Instant::now();
        sick.withdraw();
        becomes(&mut first, false).await;
        let second_term = becomes(&mut second, true).await;
        assert!(second_term > first_term);
        assert!(withdrawn.elapsed() <= Duration::from_secs(2), "took {:?}", withdrawn.elapsed());
        assert_eq!(api.holder().as_deref(), Some("second"));

        healthy.withdraw();
        becomes(&mut second, false).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(api.holder().as_deref(), Some(""), "neither is a candidate");
        sick.renew();
        let third_term = becomes(&mut first, true).await;
        assert!(third_term > second_term);
    }
}
