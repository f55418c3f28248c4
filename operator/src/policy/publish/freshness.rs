//! Proves that the cache is current: lists the metadata of every kind that is compiled, and compares it with what the
//! watches have delivered.
//!
//! A watch can hang, or be served by an API server that lags, without any error; and a leader that is cut off from the
//! API server still believes that it leads. A list without `resourceVersion` is served from a quorum, so the cache must
//! be at least as new as the list. Only metadata is transferred, and nothing is written. An object that cannot be read
//! counts like any other: the cache has seen it at its version.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::core::ObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::kubernetes::cache::{Cache, GuardedKind, Objects};
use crate::kubernetes::labels;
use crate::kubernetes::timeout::with_timeout;

/// Number of objects per page: a page of large objects must fit into memory.
const PAGE_SIZE: u32 = 100;
/// How long a proof may take. It says how current the cache was when it began, so a slower one would be worth little.
const PROOF_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the watches may take to deliver what a list contains.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the cache is compared with the list while it catches up.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Why the cache could not be proved to be current.
#[derive(Debug, thiserror::Error)]
pub(super) enum FreshnessError {
    /// The API server refused or could not be reached.
    #[error("failed to list {kind}")]
    Api {
        /// Kind of the listed objects.
        kind: String,
        /// Error of the API server.
        source: Box<kube::Error>,
    },
    /// A watch did not deliver what the list contains.
    #[error("the watch of {0} lags")]
    Lags(String),
    /// There are too many objects, or the API server is too slow.
    #[error("the objects could not be listed in time")]
    TooSlow,
}

/// Proves that the cache is at least as new as the API server was at the returned time.
pub(super) async fn prove(client: &Client, cache: &Cache) -> Result<Instant, FreshnessError> {
    let started = Instant::now();
    let all = ListParams::default();
    let services_of_servers = ListParams::default().labels(labels::SERVER_UID);
    let namespaces_of_tenants = ListParams::default().labels(labels::TENANT);
    let checks = async {
        tokio::try_join!(
            check(client, &cache.objects.tenants, &all),
            check(client, &cache.objects.servers, &all),
            check(client, &cache.objects.scopes, &all),
            check(client, &cache.objects.principals, &all),
            check(client, &cache.objects.budgets, &all),
            check(client, &cache.services, &services_of_servers),
            check(client, &cache.namespaces, &namespaces_of_tenants),
        )
    };
    tokio::time::timeout(PROOF_TIMEOUT, Box::pin(checks)).await.map_err(|_| FreshnessError::TooSlow)??;
    Ok(started)
}

/// UID and `resourceVersion` of an object.
type Version = (String, u64);

fn version(metadata: &ObjectMeta) -> Version {
    let version = metadata.resource_version.as_ref().and_then(|version| version.parse().ok());
    (metadata.uid.clone().unwrap_or_default(), version.unwrap_or_default())
}

/// Cached objects of one kind.
trait Cached<K> {
    /// Returns the versions of all of them.
    fn versions(&self) -> Vec<Version>;
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Cached<K> for Store<K> {
    fn versions(&self) -> Vec<Version> {
        self.state().iter().map(|object| version(object.meta())).collect()
    }
}

impl<K: GuardedKind> Cached<K> for Objects<K> {
    fn versions(&self) -> Vec<Version> {
        self.all().iter().map(|object| version(object.metadata())).collect()
    }
}

async fn check<K>(client: &Client, cached: &impl Cached<K>, params: &ListParams) -> Result<(), FreshnessError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + 'static,
{
    let kind = K::kind(&()).into_owned();
    let failed = |source| FreshnessError::Api { kind: kind.clone(), source: Box::new(source) };
    let api: Api<K> = Api::all(client.clone());
    let mut params = params.clone().limit(PAGE_SIZE);
    let (mut listed, mut listed_at) = (Vec::<Version>::new(), None);
    loop {
        // All pages show the state at the version of the first page.
        let page = with_timeout(api.list_metadata(&params)).await.map_err(&failed)?;
        listed.extend(page.items.iter().map(|object| version(&object.metadata)));
        listed_at = listed_at.or(page.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    let started = Instant::now();
    loop {
        if caught_up(&listed, listed_at.unwrap_or_default(), &cached.versions()) {
            return Ok(());
        }
        if started.elapsed() > CATCH_UP_TIMEOUT {
            return Err(FreshnessError::Lags(kind));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns whether the cached objects are at least as new as those that were listed at version `listed_at`. Kubernetes
/// guarantees that versions of one kind grow with every change and may be compared as numbers.
fn caught_up(listed: &[Version], listed_at: u64, cached: &[Version]) -> bool {
    let cached_by_uid: HashMap<&str, u64> = cached.iter().map(|(uid, version)| (uid.as_str(), *version)).collect();
    let listed_uids: HashMap<&str, u64> = listed.iter().map(|(uid, version)| (uid.as_str(), *version)).collect();
    let nothing_missing =
        listed.iter().all(|(uid, version)| cached_by_uid.get(uid.as_str()).is_some_and(|cached| cached >= version));
    // A cached object that was not listed is either newer than the list, or its deletion was missed.
    let nothing_deleted =
        cached.iter().all(|(uid, version)| listed_uids.contains_key(uid.as_str()) || *version > listed_at);
    nothing_missing && nothing_deleted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::cache;
    use crate::kubernetes::cache::testing::{WatchedApi, budget, eventually};

    fn versions(all: &[(&str, u64)]) -> Vec<Version> {
        all.iter().map(|(uid, version)| ((*uid).to_owned(), *version)).collect()
    }

    #[test]
    fn a_cache_is_current_when_it_is_at_least_as_new_as_the_list() {
        let listed = versions(&[("a", 5), ("b", 7)]);
        assert!(caught_up(&listed, 9, &versions(&[("a", 5), ("b", 7)])));
        assert!(caught_up(&listed, 9, &versions(&[("a", 12), ("b", 7), ("c", 11)])), "it may be ahead");
    }

    #[test]
    fn a_missed_creation_change_or_deletion_is_noticed() {
        let listed = versions(&[("a", 5), ("b", 7)]);
        assert!(!caught_up(&listed, 9, &versions(&[("a", 5)])), "creation");
        assert!(!caught_up(&listed, 9, &versions(&[("a", 5), ("b", 6)])), "change");
        assert!(!caught_up(&listed, 9, &versions(&[("a", 5), ("b", 7), ("c", 8)])), "deletion");
    }

    #[tokio::test]
    async fn the_cache_is_proved_current_while_objects_cannot_be_read() {
        let api = WatchedApi::default();
        api.put("mcpbudgets", budget("good", "5.00"));
        api.put("mcpbudgets", budget("bad", "9999999999"));
        let client = api.client();
        let (cache, watches) = cache::start(&client);
        let watches = tokio::spawn(watches);
        let filled = tokio::time::timeout(Duration::from_secs(5), cache.wait_until_filled()).await;
        assert!(filled.expect("the cache was not filled"));
        prove(&client, &cache).await.unwrap();
        // Each change is proved before the next, whether the cache already has it or not.
        api.put("mcpbudgets", budget("good", "9999999999"));
        prove(&client, &cache).await.unwrap();
        api.put("mcpbudgets", budget("bad", "5.00"));
        prove(&client, &cache).await.unwrap();
        api.delete("mcpbudgets", "good");
        prove(&client, &cache).await.unwrap();
        assert!(cache.objects.budgets.unreadable().is_empty());
        // A change of an unreadable object that the watch misses is noticed.
        api.put("mcpbudgets", budget("bad", "9999999999"));
        eventually("the change", || cache.objects.budgets.unreadable().pop()).await;
        watches.abort();
        let _ = watches.await;
        api.put("mcpbudgets", budget("bad", "99999999999"));
        assert!(matches!(prove(&client, &cache).await, Err(FreshnessError::Lags(kind)) if kind == "MCPBudget"));
    }
}
