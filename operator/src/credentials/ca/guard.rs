//! Guards the Secret of the authority while a replica runs. Start at [`Guard::run`].
//!
//! A running replica serves with the authority in its memory, whatever happens to the Secret. The leader creates a deleted
//! Secret again. It does not touch a Secret that holds another authority: that may be what an administrator is restoring.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Secret};
use kube::{Api, Client};
use mcp_fleet_core::control_server::Alarms as _;
use mcp_fleet_core::credentials::ca::Authority;
use mcp_fleet_core::retry::jittered;

use super::fleet::{Decision, decide, read_record, write_record};
use super::secret::{authority_secret, post, read_authority};
use super::{ACCEPT, CA_NAME};
use crate::kubernetes::events::Events;
use crate::kubernetes::leader::Leadership;
use crate::kubernetes::timeout::with_timeout;
use crate::telemetry::Metrics;

/// How often the Secret is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);

/// Checks the Secret of the authority against the one in memory.
pub(crate) struct Guard<'a> {
    pub client: &'a Client,
    /// The operator's namespace.
    pub namespace: &'a str,
    /// The authority in memory.
    pub authority: &'a Authority,
    pub leadership: &'a Leadership,
    pub events: &'a Events,
    pub metrics: &'a Metrics,
}

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
enum Check {
    /// The Secret holds the authority in memory.
    Fine,
    /// The Secret was deleted. The leader has created it again.
    Missing,
    /// The Secret holds something else.
    Replaced,
    /// The fleet has another authority now.
    Outdated,
}

impl Guard<'_> {
    /// Checks the Secret periodically. Returns once the fleet has another authority than the one in memory.
    pub(crate) async fn run(&self) {
        let mut last = Check::Fine;
        loop {
            tokio::time::sleep(jittered(CHECK_INTERVAL)).await;
            let check = match self.check().await {
                Ok(check) => check,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "failed to check the Secret {CA_NAME}");
                    continue;
                }
            };
            self.metrics.ca_problem.set(i64::from(check != Check::Fine));
            if check == Check::Outdated {
                return;
            }
            if check != last {
                self.report(&check).await;
            }
            last = check;
        }
    }

    async fn check(&self) -> Result<Check, kube::Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        let records: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let record = read_record(&records).await?;
        let found = with_timeout(secrets.get_opt(CA_NAME)).await?;
        let own = self.authority.fingerprint();
        let Some(found) = found else {
            if record.is_some_and(|record| record.accepts_another || record.fingerprint != own) {
                return Ok(Check::Outdated);
            }
            if self.leadership.is_leader() {
                let secret = authority_secret(self.namespace, self.authority);
                with_timeout(secrets.create(&post(), &secret)).await?;
            }
            return Ok(Check::Missing);
        };
        let stored = read_authority(&found).ok().map(|authority| authority.fingerprint());
        if stored.as_ref() == Some(&own) {
            // Another value in the record cannot be right: every replica checks it before it serves.
            if record.is_none() && self.leadership.is_leader() {
                write_record(&records, None, &own).await?;
            }
            return Ok(Check::Fine);
        }
        let accepted = stored.is_some()
            && matches!(decide(record.as_ref(), stored.as_deref(), true), Decision::Use | Decision::Record)
            && record.is_some();
        Ok(if accepted { Check::Outdated } else { Check::Replaced })
    }

    async fn report(&self, check: &Check) {
        let note = match check {
            Check::Missing => {
                if !self.leadership.is_leader() {
                    return;
                }
                self.metrics.ca_restores.inc();
                format!("the Secret {CA_NAME} was deleted, and is restored from memory; keep a backup of it")
            }
            Check::Replaced => format!(
                "the Secret {CA_NAME} does not hold the certificate authority that the fleet trusts; a replica that \
                 starts now does not get ready. Restore the Secret from a backup, or delete it, and it is restored from \
                 memory. To use the other authority, annotate the ConfigMap {CA_NAME} with {ACCEPT}={}",
                self.authority.fingerprint()
            ),
            Check::Fine | Check::Outdated => return,
        };
        tracing::error!(secret = CA_NAME, note);
        self.events.alarm(&reference(self.namespace), "CertificateAuthorityLost", "Guard", note).await;
    }
}

/// Returns a reference to the Secret of the authority, for Events.
pub(crate) fn reference(namespace: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Secret".into()),
        name: Some(CA_NAME.into()),
        namespace: Some(namespace.into()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::credentials::ca::load;
    use crate::testing::FakeApi;

    const NAMESPACE: &str = "mcp-fleet-system";
    const SECRET: &str = "/api/v1/namespaces/mcp-fleet-system/secrets/mcp-fleet-ca";
    const RECORD: &str = "/api/v1/namespaces/mcp-fleet-system/configmaps/mcp-fleet-ca";

    /// Runs `steps` with a check of a running replica, which leads or not.
    async fn with_guard(leads: bool, steps: impl AsyncFnOnce(&FakeApi, &Guard<'_>)) {
        let api = FakeApi::default();
        let client = api.client();
        let authority = load(&client, NAMESPACE, Timestamp::now()).await.unwrap();
        let (elected, leadership) = Leadership::channel();
        elected.send_replace(leads.then_some(1));
        let (events, metrics) = (Events::new(client.clone(), "operator-0"), Metrics::new().unwrap());
        let guard = Guard {
            client: &client,
            namespace: NAMESPACE,
            authority: &authority,
            leadership: &leadership,
            events: &events,
            metrics: &metrics,
        };
        steps(&api, &guard).await;
    }

    #[tokio::test]
    async fn the_leader_restores_a_deleted_secret_and_a_follower_does_not() {
        with_guard(true, async |api, guard| {
            let before = api.get(SECRET).unwrap()["data"].clone();
            assert_eq!(guard.check().await.unwrap(), Check::Fine);
            api.remove(SECRET);
            assert_eq!(guard.check().await.unwrap(), Check::Missing);
            assert_eq!(api.get(SECRET).unwrap()["data"], before);
            assert_eq!(guard.check().await.unwrap(), Check::Fine);
            guard.report(&Check::Missing).await;
            assert_eq!(api.take_events(), ["CertificateAuthorityLost"]);
        })
        .await;
        with_guard(false, async |api, guard| {
            api.remove(SECRET);
            assert_eq!(guard.check().await.unwrap(), Check::Missing);
            assert!(api.get(SECRET).is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn another_authority_is_left_alone_and_taken_over_once_it_is_accepted() {
        let other = FakeApi::default();
        load(&other.client(), NAMESPACE, Timestamp::now()).await.unwrap();
        let other = other.get(SECRET).unwrap();
        with_guard(true, async |api, guard| {
            api.insert(SECRET, other.clone());
            assert_eq!(guard.check().await.unwrap(), Check::Replaced);
            assert_eq!(api.get(SECRET).unwrap(), other);
            let mut record = api.get(RECORD).unwrap();
            record["metadata"]["annotations"] = json!({ACCEPT: guard.authority.fingerprint()});
            api.insert(RECORD, record.clone());
            assert_eq!(guard.check().await.unwrap(), Check::Outdated);
            // With an acceptance, a deleted Secret is not restored either.
            api.remove(SECRET);
            assert_eq!(guard.check().await.unwrap(), Check::Outdated);
            // Another replica has recorded the new authority.
            api.insert(SECRET, other.clone());
            load(&api.client(), NAMESPACE, Timestamp::now()).await.unwrap();
            assert_eq!(guard.check().await.unwrap(), Check::Outdated);
        })
        .await;
    }

    #[tokio::test]
    async fn a_deleted_record_is_restored() {
        with_guard(true, async |api, guard| {
            api.remove(RECORD);
            assert_eq!(guard.check().await.unwrap(), Check::Fine);
            assert_eq!(api.get(RECORD).unwrap()["data"]["fingerprint"], guard.authority.fingerprint());
        })
        .await;
    }
}
