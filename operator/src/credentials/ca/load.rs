//! Loads the authority when a replica starts. Start at [`load`].

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use mcp_fleet_core::credentials::ca::Authority;

use super::fleet::{Decision, Record, UNKNOWN, decide, is_in_use, read_record, write_record};
use super::secret::{SecretError, authority_secret, post, read_authority};
use super::{ACCEPT, CA_NAME};
use crate::kubernetes::timeout::with_timeout;

/// Why the authority could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The Secret of the authority does not exist, although the fleet trusts one.
    #[error(
        "the Secret {CA_NAME} does not exist, but the fleet trusts the certificate authority with the fingerprint \
         {trusted}; restore the Secret from a backup. To have a new authority, which every agent, gateway and tool pod \
         has to learn first, annotate the ConfigMap {CA_NAME} with {ACCEPT}={trusted}"
    )]
    Missing {
        /// Fingerprint of the authority that the fleet trusts.
        trusted: String,
    },
    /// The Secret holds another authority than the one that the fleet trusts.
    #[error(
        "the Secret {CA_NAME} holds the certificate authority with the fingerprint {stored}, but the fleet trusts \
         {trusted}; restore the Secret from a backup. To use the other authority, which every agent, gateway and tool \
         pod has to learn first, annotate the ConfigMap {CA_NAME} with {ACCEPT}={trusted}"
    )]
    Replaced {
        /// Fingerprint of the authority in the Secret.
        stored: String,
        /// Fingerprint of the authority that the fleet trusts.
        trusted: String,
    },
    /// The Secret could not be read or written, or its contents are invalid.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The record of the authority could not be read or written.
    #[error("failed to read or write the ConfigMap {CA_NAME}")]
    Record(#[source] kube::Error),
    /// The tenants could not be listed.
    #[error("failed to list the tenants")]
    Tenants(#[source] kube::Error),
}

impl LoadError {
    /// Whether a person has to restore or accept an authority. Without that, retries do not help.
    pub(crate) const fn is_alarm(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Replaced { .. }
                | Self::Secret(SecretError::Unusable { .. } | SecretError::Certificate(_))
        )
    }
}

/// Loads the authority, or creates it at the first start in a cluster. If two replicas create it at the same time, one
/// succeeds and both use its key: the other's attempt fails, and its next one finds the Secret.
pub(crate) async fn load(client: &Client, namespace: &str, now: Timestamp) -> Result<Authority, LoadError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let records: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    // The record is read first: it is written after the Secret, so a record without a Secret means a loss.
    let record = read_record(&records).await.map_err(LoadError::Record)?;
    let found = with_timeout(secrets.get_opt(CA_NAME)).await.map_err(api_error)?;
    let stored = found.as_ref().map(read_authority).transpose()?;
    let in_use = record.is_none() && stored.is_none() && is_in_use(client).await.map_err(LoadError::Tenants)?;
    let fingerprint = stored.as_ref().map(Authority::fingerprint);
    let decision = decide(record.as_ref(), fingerprint.as_deref(), in_use);
    let trusted = record.as_ref().map_or_else(|| UNKNOWN.to_owned(), |record| record.fingerprint.clone());
    let missing = || LoadError::Missing { trusted: trusted.clone() };
    match decision {
        Decision::Use => stored.ok_or_else(missing),
        Decision::Record => {
            let authority = stored.ok_or_else(missing)?;
            accept(&records, record.as_ref(), &authority).await?;
            Ok(authority)
        }
        Decision::Create => {
            let (certificate, key) = Authority::generate(now).map_err(SecretError::from)?;
            let authority = Authority::from_pem(&certificate, &key).map_err(SecretError::from)?;
            with_timeout(secrets.create(&post(), &authority_secret(namespace, &authority))).await.map_err(api_error)?;
            tracing::info!(
                secret = CA_NAME,
                fingerprint = authority.fingerprint(),
                "created the certificate authority"
            );
            accept(&records, record.as_ref(), &authority).await?;
            Ok(authority)
        }
        Decision::RecordLoss => {
            write_record(&records, None, UNKNOWN).await.map_err(LoadError::Record)?;
            Err(missing())
        }
        Decision::Missing => Err(missing()),
        Decision::Replaced => Err(LoadError::Replaced { stored: fingerprint.unwrap_or_default(), trusted }),
    }
}

async fn accept(api: &Api<ConfigMap>, before: Option<&Record>, authority: &Authority) -> Result<(), LoadError> {
    let fingerprint = authority.fingerprint();
    if let Some(before) = before {
        tracing::warn!(
            before = before.fingerprint,
            fingerprint,
            "an administrator accepted another certificate authority"
        );
    }
    write_record(api, before, &fingerprint).await.map_err(LoadError::Record)
}

fn api_error(source: kube::Error) -> LoadError {
    LoadError::Secret(SecretError::Api { name: CA_NAME.into(), source })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::FakeApi;

    const SECRET: &str = "/api/v1/namespaces/mcp-fleet-system/secrets/mcp-fleet-ca";
    const RECORD: &str = "/api/v1/namespaces/mcp-fleet-system/configmaps/mcp-fleet-ca";
    const TENANT: &str = "/apis/mcp-fleet.dev/v1alpha1/mcptenants/acme";

    async fn start(api: &FakeApi) -> Result<String, LoadError> {
        let loaded = load(&api.client(), "mcp-fleet-system", Timestamp::now()).await;
        loaded.map(|authority| authority.fingerprint())
    }

    fn tenant(finalizers: &Value) -> Value {
        json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
            "metadata": {"name": "acme", "finalizers": finalizers}})
    }

    fn accept(api: &FakeApi) {
        let mut record = api.get(RECORD).unwrap();
        record["metadata"]["annotations"] = json!({ACCEPT: record["data"]["fingerprint"]});
        api.insert(RECORD, record);
    }

    #[tokio::test]
    async fn a_first_start_creates_an_authority_and_later_starts_use_it() {
        let api = FakeApi::default();
        // A tenant that no operator has worked on.
        api.insert(TENANT, tenant(&json!([])));
        let first = start(&api).await.unwrap();
        assert_eq!(api.get(RECORD).unwrap()["data"]["fingerprint"], first);
        assert_eq!(start(&api).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_lost_authority_is_not_replaced_until_that_is_accepted() {
        let api = FakeApi::default();
        let first = start(&api).await.unwrap();
        api.remove(SECRET);
        for _ in 0..2 {
            let error = start(&api).await.unwrap_err();
            assert!(error.is_alarm() && error.to_string().contains(&first), "{error}");
        }
        assert!(api.get(SECRET).is_none());
        accept(&api);
        let second = start(&api).await.unwrap();
        assert_ne!(second, first);
        // That was accepted once, not for good.
        api.remove(SECRET);
        assert!(matches!(start(&api).await, Err(LoadError::Missing { trusted }) if trusted == second));
    }

    #[tokio::test]
    async fn an_authority_that_was_lost_with_its_record_is_missed() {
        let api = FakeApi::default();
        api.insert(TENANT, tenant(&json!(["mcp-fleet.dev/teardown"])));
        for _ in 0..2 {
            assert!(matches!(start(&api).await, Err(LoadError::Missing { trusted }) if trusted == "unknown"));
        }
        accept(&api);
        start(&api).await.unwrap();
    }

    #[tokio::test]
    async fn another_authority_in_the_secret_is_not_used_until_that_is_accepted() {
        let (api, other) = (FakeApi::default(), FakeApi::default());
        let (first, second) = (start(&api).await.unwrap(), start(&other).await.unwrap());
        api.insert(SECRET, other.get(SECRET).unwrap());
        let error = start(&api).await.unwrap_err();
        assert!(matches!(&error, LoadError::Replaced { stored, trusted } if (stored, trusted) == (&second, &first)));
        accept(&api);
        assert_eq!(start(&api).await.unwrap(), second);
        assert_eq!(start(&api).await.unwrap(), second);
    }

    #[tokio::test]
    async fn an_authority_of_an_earlier_version_is_recorded() {
        let api = FakeApi::default();
        let first = start(&api).await.unwrap();
        api.remove(RECORD);
        assert_eq!(start(&api).await.unwrap(), first);
        assert_eq!(api.get(RECORD).unwrap()["data"]["fingerprint"], first);
    }

    #[tokio::test]
    async fn a_secret_without_a_key_is_an_alarm() {
        let api = FakeApi::default();
        start(&api).await.unwrap();
        let mut secret = api.get(SECRET).unwrap();
        secret["data"].as_object_mut().unwrap().remove("tls.key");
        api.insert(SECRET, secret);
        assert!(start(&api).await.unwrap_err().is_alarm());
    }
}
