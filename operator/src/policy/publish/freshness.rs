//! The proof that the stores are current: a consistent list of the metadata of every kind that is compiled, compared
//! with what the watches have brought.
//!
//! A watch can hang, or be served by an API server that lags, without saying so; and a leader that is cut off believes
//! in itself. A list without `resourceVersion` is answered from a quorum: what it shows, the stores must hold at
//! least. Only metadata travels, and nothing is written.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::kubernetes::cache::Cache;
use crate::kubernetes::labels;
use crate::kubernetes::timeout::with_timeout;

/// How many objects are listed at a time: a page of large ones has to fit into memory.
const PAGE: u32 = 100;
/// How long the watches may take to bring what a list has shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub(super) enum FreshError {
    /// The API server refused or could not be reached.
    #[error("failed to list {kind}")]
    Api {
        /// What was listed.
        kind: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// A watch has not brought what a list shows.
    #[error("the watch of {0} lags")]
    Lags(String),
}

/// Proves that the stores hold at least what the API server held at the answered moment.
pub(super) async fn prove(client: &Client, cache: &Cache) -> Result<Instant, FreshError> {
    let started = Instant::now();
    let all = ListParams::default();
    let of_servers = ListParams::default().labels(labels::SERVER_UID);
    let of_tenants = ListParams::default().labels(labels::TENANT);
    tokio::try_join!(
        check(client, &cache.tenants, &all),
        check(client, &cache.servers, &all),
        check(client, &cache.scopes, &all),
        check(client, &cache.principals, &all),
        check(client, &cache.budgets, &all),
        check(client, &cache.services, &of_servers),
        check(client, &cache.namespaces, &of_tenants),
    )?;
    Ok(started)
}

/// UID and version of an object.
type Version = (String, u64);

fn version(object: &impl ResourceExt) -> Version {
    let version = object.resource_version().and_then(|version| version.parse().ok());
    (object.uid().unwrap_or_default(), version.unwrap_or_default())
}

async fn check<K>(client: &Client, store: &Store<K>, params: &ListParams) -> Result<(), FreshError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + 'static,
{
    let kind = K::kind(&()).into_owned();
    let failed = |source| FreshError::Api { kind: kind.clone(), source: Box::new(source) };
    let api: Api<K> = Api::all(client.clone());
    let mut params = params.clone().limit(PAGE);
    let (mut listed, mut listed_at) = (Vec::<Version>::new(), None);
    loop {
        // All pages show what there was at the version of the first.
        let page = with_timeout(api.list_metadata(&params)).await.map_err(&failed)?;
        listed.extend(page.items.iter().map(version));
        listed_at = listed_at.or(page.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break,
        }
    }
    let started = Instant::now();
    loop {
        let held: Vec<Version> = store.state().iter().map(|object| version(&**object)).collect();
        if caught_up(&listed, listed_at.unwrap_or_default(), &held) {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(FreshError::Lags(kind));
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Whether what is held is at least as new as what was listed at a version. Versions of one kind grow with every
/// change (Kubernetes: they may be compared as numbers).
fn caught_up(listed: &[Version], listed_at: u64, held: &[Version]) -> bool {
    let held_by_uid: HashMap<&str, u64> = held.iter().map(|(uid, version)| (uid.as_str(), *version)).collect();
    let listed_uids: HashMap<&str, u64> = listed.iter().map(|(uid, version)| (uid.as_str(), *version)).collect();
    let nothing_missing =
        listed.iter().all(|(uid, version)| held_by_uid.get(uid.as_str()).is_some_and(|held| held >= version));
    // What is held and was not listed is either newer than the list, or deleted without our knowing.
    let nothing_deleted =
        held.iter().all(|(uid, version)| listed_uids.contains_key(uid.as_str()) || *version > listed_at);
    nothing_missing && nothing_deleted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(all: &[(&str, u64)]) -> Vec<Version> {
        all.iter().map(|(uid, version)| ((*uid).to_owned(), *version)).collect()
    }

    #[test]
    fn a_store_is_current_when_it_holds_at_least_what_was_listed() {
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
}
