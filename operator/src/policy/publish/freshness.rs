//! Proves that the cache is current: compares what the API server has of every kind that is compiled with what the watches
//! have delivered.
//!
//! A watch can hang, or be served by an API server that lags, without any error; and a leader that is cut off from the
//! API server still believes that it leads. Only metadata is transferred, and nothing is written. An object that cannot be
//! read counts like any other: the cache has seen it at its version.
//!
//! A list without `resourceVersion` is served from a quorum, so the cache must be at least as new as the list. The metadata
//! of a kind with few objects is listed in full and compared. For a kind with many objects that would be more work than
//! everything else an idle operator does. There a list of one object tells the version as of now, and a second watch
//! replays the changes since the newest one that the cache has, until a bookmark says that it has reached that version. The
//! cache is current once its own watch has delivered the last of these changes. If there is no such bookmark, everything is
//! listed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, WatchParams};
use kube::core::{ObjectMeta, WatchEvent};
use kube::{Api, Client, Resource};
use mcp_fleet_core::labels;
use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use serde::de::DeserializeOwned;

use crate::kubernetes::cache::{Cache, Row, Table, version};
use crate::kubernetes::timeout::with_timeout;

/// Number of objects per page: a page of large objects must fit into memory.
const PAGE_SIZE: u32 = 100;
/// Number of objects of a kind up to which all of them are listed. Then one page is enough.
const MOST_LISTED: usize = 100;
/// How long the API server may replay changes, in seconds. It sends a bookmark two seconds before that time is over.
const REPLAY_SECONDS: u32 = 3;
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
    /// The kill switch could not be read.
    #[error("failed to read the kill switch")]
    KillSwitch(#[source] Box<kube::Error>),
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
    let our_endpoints = ListParams::default().labels(labels::MANAGED_SELECTOR);
    let namespaces_of_tenants = ListParams::default().labels(labels::TENANT);
    let checks = async {
        tokio::try_join!(
            check::<MCPTenant>(client, cache.objects.tenants.table(), &all),
            check::<MCPServer>(client, cache.objects.servers.table(), &all),
            check::<MCPScope>(client, cache.objects.scopes.table(), &all),
            check::<MCPPrincipal>(client, cache.objects.principals.table(), &all),
            check::<MCPBudget>(client, cache.objects.budgets.table(), &all),
            check::<EndpointSlice>(client, &cache.endpoints, &our_endpoints),
            check::<Namespace>(client, &cache.namespaces, &namespaces_of_tenants),
        )
    };
    tokio::time::timeout(PROOF_TIMEOUT, Box::pin(checks)).await.map_err(|_| FreshnessError::TooSlow)??;
    Ok(started)
}

/// UID and `resourceVersion` of an object.
type Version = (String, u64);

fn version_of(metadata: &ObjectMeta) -> Version {
    (metadata.uid.clone().unwrap_or_default(), version(metadata))
}

async fn check<K>(client: &Client, cached: &Table<impl Row>, params: &ListParams) -> Result<(), FreshnessError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    if cached.len() > MOST_LISTED
        && let Some(newest) = newest_change(&api, cached.position(), params).await?
    {
        return caught_up::<K>(|| cached.position() >= newest).await;
    }
    let (listed, listed_at) = list(&api, params).await?;
    let versions = || cached.all().iter().map(|object| version_of(object.metadata())).collect::<Vec<_>>();
    caught_up::<K>(|| is_as_new(&listed, listed_at, &versions())).await
}

/// Waits until a condition holds, as long as the watches may take to deliver what a list contains.
async fn caught_up<K: Resource<DynamicType = ()>>(condition: impl Fn() -> bool) -> Result<(), FreshnessError> {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > CATCH_UP_TIMEOUT {
            return Err(FreshnessError::Lags(K::kind(&()).into_owned()));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Returns the version of the newest change of a kind as of now, which is `position` if there was none since. None if the
/// API server did not say that it replayed all changes.
async fn newest_change<K>(api: &Api<K>, position: u64, params: &ListParams) -> Result<Option<u64>, FreshnessError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + 'static,
{
    let page = with_timeout(api.list_metadata(&params.clone().limit(1))).await.map_err(failed::<K>)?;
    let Some(now) = page.metadata.resource_version.and_then(|version| version.parse::<u64>().ok()) else {
        return Ok(None);
    };
    let mut replay = WatchParams::default().timeout(REPLAY_SECONDS);
    replay.label_selector.clone_from(&params.label_selector);
    let newest = async {
        let mut events = api.watch_metadata(&replay, &position.to_string()).await?.boxed();
        let mut newest = position;
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    newest = newest.max(version(&object.metadata));
                }
                WatchEvent::Bookmark(bookmark) => {
                    let reached = bookmark.metadata.resource_version.parse::<u64>();
                    if reached.is_ok_and(|reached| reached >= now) {
                        return Ok(Some(newest));
                    }
                }
                // The changes since then are no longer known.
                WatchEvent::Error(_) => return Ok(None),
            }
            // A change after the list proves as much as a bookmark.
            if newest >= now {
                return Ok(Some(newest));
            }
        }
        Ok::<_, kube::Error>(None)
    };
    let limit = Duration::from_secs(u64::from(REPLAY_SECONDS) + 2);
    match tokio::time::timeout(limit, newest).await {
        Ok(Ok(newest)) => Ok(newest),
        // A watch that cannot start from that version, or hangs.
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

/// Lists the versions of all objects of a kind. Also returns the version of the list.
async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<(Vec<Version>, u64), FreshnessError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + 'static,
{
    let mut params = params.clone().limit(PAGE_SIZE);
    let (mut listed, mut listed_at) = (Vec::new(), None);
    loop {
        // All pages show the state at the version of the first page.
        let page = with_timeout(api.list_metadata(&params)).await.map_err(failed::<K>)?;
        listed.extend(page.items.iter().map(|object| version_of(&object.metadata)));
        listed_at = listed_at.or(page.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok((listed, listed_at.unwrap_or_default())),
        }
    }
}

fn failed<K: Resource<DynamicType = ()>>(source: kube::Error) -> FreshnessError {
    FreshnessError::Api { kind: K::kind(&()).into_owned(), source: Box::new(source) }
}

/// Returns whether the cached objects are at least as new as those that were listed at version `listed_at`. Kubernetes
/// guarantees that versions of one kind grow with every change and may be compared as numbers.
fn is_as_new(listed: &[Version], listed_at: u64, cached: &[Version]) -> bool {
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
    use crate::kubernetes::cache::testing::{PATIENCE, WatchedApi, budget, eventually};

    fn versions(all: &[(&str, u64)]) -> Vec<Version> {
        all.iter().map(|(uid, version)| ((*uid).to_owned(), *version)).collect()
    }

    #[test]
    fn a_cache_is_current_when_it_is_at_least_as_new_as_the_list() {
        let listed = versions(&[("a", 5), ("b", 7)]);
        assert!(is_as_new(&listed, 9, &versions(&[("a", 5), ("b", 7)])));
        assert!(is_as_new(&listed, 9, &versions(&[("a", 12), ("b", 7), ("c", 11)])), "it may be ahead");
    }

    #[test]
    fn a_missed_creation_change_or_deletion_is_noticed() {
        let listed = versions(&[("a", 5), ("b", 7)]);
        assert!(!is_as_new(&listed, 9, &versions(&[("a", 5)])), "creation");
        assert!(!is_as_new(&listed, 9, &versions(&[("a", 5), ("b", 6)])), "change");
        assert!(!is_as_new(&listed, 9, &versions(&[("a", 5), ("b", 7), ("c", 8)])), "deletion");
    }

    #[tokio::test]
    async fn the_cache_is_proved_current_while_objects_cannot_be_read() {
        let api = WatchedApi::default();
        api.put("mcpbudgets", budget("good", "5.00"));
        api.put("mcpbudgets", budget("bad", "9999999999"));
        let client = api.client();
        let (cache, watches) = cache::start(&client);
        let watches = tokio::spawn(watches);
        let filled = tokio::time::timeout(PATIENCE, cache.wait_until_filled()).await;
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

    /// Returns a cache of many budgets, and its API server.
    async fn many_budgets() -> (WatchedApi, Client, Cache, tokio::task::JoinHandle<()>) {
        let api = WatchedApi::default();
        (0..3 * MOST_LISTED).for_each(|number| api.put("mcpbudgets", budget(&format!("budget-{number}"), "5.00")));
        let client = api.client();
        let (cache, watches) = cache::start(&client);
        let watches = tokio::spawn(watches);
        let filled = tokio::time::timeout(PATIENCE, cache.wait_until_filled()).await;
        assert!(filled.expect("the cache was not filled"));
        api.take_listed_metadata();
        (api, client, cache, watches)
    }

    #[tokio::test]
    async fn the_work_of_a_proof_does_not_depend_on_the_number_of_objects() {
        let (api, client, cache, watches) = many_budgets().await;
        prove(&client, &cache).await.unwrap();
        assert_eq!(api.take_listed_metadata(), 1);
        api.put("mcpbudgets", budget("budget-7", "6.00"));
        api.put("mcpbudgets", budget("bad", "9999999999"));
        api.delete("mcpbudgets", "budget-8");
        prove(&client, &cache).await.unwrap();
        assert_eq!(api.take_listed_metadata(), 1);
        // Without a bookmark everything is listed.
        api.send_no_bookmarks(true);
        prove(&client, &cache).await.unwrap();
        assert_eq!(api.take_listed_metadata(), 1 + 3 * MOST_LISTED);
        watches.abort();
    }

    #[tokio::test]
    async fn a_change_that_the_watch_of_many_objects_misses_is_noticed() {
        for change in [
            (|api: &WatchedApi| api.put("mcpbudgets", budget("budget-7", "6.00"))) as fn(&WatchedApi),
            |api| api.put("mcpbudgets", budget("new", "5.00")),
            |api| api.delete("mcpbudgets", "budget-7"),
        ] {
            let (api, client, cache, watches) = many_budgets().await;
            watches.abort();
            let _ = watches.await;
            prove(&client, &cache).await.unwrap();
            change(&api);
            assert!(matches!(prove(&client, &cache).await, Err(FreshnessError::Lags(kind)) if kind == "MCPBudget"));
        }
    }
}
