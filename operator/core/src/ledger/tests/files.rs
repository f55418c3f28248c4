//! The store that keeps books in a folder.

use std::path::Path;

use super::super::files::FileStore;
use super::*;

fn ledger_in(folder: &Path) -> Ledger<FileStore> {
    Ledger::new(FileStore::open(folder).unwrap(), || NOON, Duration::ZERO)
}

async fn grant(ledger: &Ledger<FileStore>, number: u64) -> Result<String, Refusal> {
    ledger.grant(&owner(), &budget(3), &request("p", number)).await.unwrap().result.map(|granted| granted.lease)
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_leased_and_spent_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = ledger_in(folder.path());
    let lease = grant(&first, 1).await.unwrap();
    let done = first.report("t-1", "b-1", report("p", &lease, 1, 1, true));
    tokio::time::advance(WRITE_INTERVAL).await;
    first.flush().await;
    done.await.unwrap().unwrap();
    grant(&first, 2).await.unwrap();
    drop(first);

    let second = ledger_in(folder.path());
    second.load().await.unwrap();
    let [(_, stored)] = &second.books()[..] else { panic!("one book") };
    assert_eq!((stored.book.settled().calls, stored.book.leased().calls), (1, 1));
    grant(&second, 3).await.unwrap();
    assert_eq!(grant(&second, 4).await, Err(Refusal::Exhausted), "one is spent and two are leased");
    assert_eq!(files(folder.path()).len(), 1, "no other files are left");
}

#[tokio::test]
async fn a_write_and_a_removal_must_name_the_version_that_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger_in(folder.path());
    grant(&ledger, 1).await.unwrap();
    let (key, stored) = ledger.books().into_iter().next().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let write = async |version: Option<&str>| store.write(&key, &owner(), &stored.book, version).await;
    assert!(matches!(write(None).await, Err(StoreError::Conflict)));
    let newer = write(Some(&stored.version)).await.unwrap();
    assert!(matches!(write(Some(&stored.version)).await, Err(StoreError::Conflict)));
    assert!(matches!(store.remove(&key, &stored.version).await, Err(StoreError::Conflict)));
    store.remove(&key, &newer).await.unwrap();
    assert_eq!(store.read(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_file_stops_only_its_own_budget() {
    let folder = tempfile::tempdir().unwrap();
    let first = ledger_in(folder.path());
    grant(&first, 1).await.unwrap();
    let [path] = &files(folder.path())[..] else { panic!("one book") };
    std::fs::write(path, "{").unwrap();

    let second = ledger_in(folder.path());
    second.load().await.unwrap();
    assert!(second.grant(&owner(), &budget(3), &request("p", 2)).await.is_err(), "what was spent is not known");
    let other = Budget { uid: "b-2".into(), name: "other".into(), ..budget(3) };
    let named = Owner { budget: "other".into(), budget_uid: "b-2".into(), ..owner() };
    second.grant(&named, &other, &request("p", 3)).await.unwrap().result.unwrap();
}
