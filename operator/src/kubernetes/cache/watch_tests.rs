//! The cache against an API server that holds objects which cannot be read.

use kube::Client;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use super::testing::{PATIENCE, WatchedApi, budget, eventually};
use super::{Cache, Change, Entry};

const PLURAL: &str = "mcpbudgets";

/// Stops the watches when a test ends.
struct Watches(AbortHandle);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn filled(client: &Client) -> (Cache, Watches) {
    let (cache, watches) = super::start(client);
    let watches = Watches(tokio::spawn(watches).abort_handle());
    let ready = tokio::time::timeout(PATIENCE, cache.wait_until_filled()).await;
    assert!(ready.expect("the cache was not filled"));
    (cache, watches)
}

fn is_readable(cache: &Cache, name: &str) -> Option<bool> {
    match cache.objects.budgets.with_uid(&format!("uid-{name}"))? {
        Entry::Readable(_) => Some(true),
        Entry::Unreadable(_) => Some(false),
    }
}

fn stored(cache: &Cache) -> Vec<String> {
    let mut names: Vec<_> = cache.budgets.state().iter().filter_map(|budget| budget.metadata.name.clone()).collect();
    names.sort();
    names
}

async fn change(changes: &mut broadcast::Receiver<Change>, name: &str) {
    let wanted = Change::Budget("acme".into(), name.into());
    let announced = async { while changes.recv().await.unwrap() != wanted {} };
    tokio::time::timeout(PATIENCE, announced).await.expect("no change was announced");
}

#[tokio::test]
async fn an_unreadable_object_does_not_keep_the_cache_from_filling() {
    let api = WatchedApi::default();
    api.put(PLURAL, budget("good", "5.00"));
    api.put(PLURAL, budget("bad", "9999999999"));
    let (cache, _watches) = filled(&api.client()).await;
    assert_eq!(stored(&cache), ["good"]);
    let unreadable = cache.objects.budgets.unreadable();
    assert_eq!(unreadable.len(), 1);
    assert!(unreadable[0].problem.starts_with("spec.amount"), "{}", unreadable[0].problem);
    assert_eq!(cache.objects.budgets.all().len(), 2);
}

#[tokio::test]
async fn objects_become_unreadable_are_repaired_and_deleted() {
    let api = WatchedApi::default();
    api.put(PLURAL, budget("one", "5.00"));
    api.put(PLURAL, budget("two", "5.00"));
    let (cache, _watches) = filled(&api.client()).await;
    let mut changes = cache.subscribe();

    api.put(PLURAL, budget("one", "9999999999"));
    change(&mut changes, "one").await;
    assert_eq!((is_readable(&cache, "one"), stored(&cache)), (Some(false), vec!["two".to_owned()]));

    api.put(PLURAL, budget("two", "6.00"));
    change(&mut changes, "two").await;
    let two = cache.budgets.state()[0].spec.amount.unwrap();
    assert_eq!(two.to_string(), "6", "other objects of the kind no longer change");

    api.put(PLURAL, budget("one", "7.00"));
    change(&mut changes, "one").await;
    assert_eq!((is_readable(&cache, "one"), stored(&cache).len()), (Some(true), 2));
    assert!(cache.objects.budgets.unreadable().is_empty());

    api.put(PLURAL, budget("one", "9999999999"));
    change(&mut changes, "one").await;
    api.delete(PLURAL, "one");
    change(&mut changes, "one").await;
    assert_eq!((is_readable(&cache, "one"), stored(&cache)), (None, vec!["two".to_owned()]));
}

#[tokio::test]
async fn a_new_list_replaces_readable_and_unreadable_objects() {
    let api = WatchedApi::default();
    api.put(PLURAL, budget("gone", "9999999999"));
    api.put(PLURAL, budget("repaired", "9999999999"));
    api.put(PLURAL, budget("spoiled", "5.00"));
    let (cache, _watches) = filled(&api.client()).await;
    api.end_watches();
    api.delete(PLURAL, "gone");
    api.put(PLURAL, budget("repaired", "5.00"));
    api.put(PLURAL, budget("spoiled", "9999999999"));
    api.end_watches();
    eventually("the new list", || (is_readable(&cache, "repaired") == Some(true)).then_some(())).await;
    assert_eq!((is_readable(&cache, "gone"), is_readable(&cache, "spoiled")), (None, Some(false)));
    assert_eq!(stored(&cache), ["repaired"]);
}
