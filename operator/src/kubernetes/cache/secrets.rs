//! Watches the metadata of our Secrets, so that a deleted one is restored at once, and one that nobody changed is not read
//! again. There is one watch for each namespace of a tenant and one for the operator's own, so that the operator needs no
//! permission to watch Secrets across the cluster.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_core::credentials::tokens::plan::Token;
use mcp_fleet_core::labels::{self, OwnerLabels};
use parking_lot::RwLock;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::owned::{Key, Knowledge, Meta, Owned, Version, owner_labels};
use super::reports::{KeptReport, KeptReports};
use super::{Cache, Change};
use crate::tasks::ended;

/// Number of watches that read their first list at a time. A new leader of a large fleet starts thousands of watches, and
/// their lists must not keep the API server from answering the renewal of its Lease.
const MAX_STARTING: usize = 16;

/// What is known of our Secrets, by namespace, while this replica leads. A list of one namespace must not cost more with
/// each Secret of another.
#[derive(Debug, Default)]
pub(crate) struct Secrets(RwLock<HashMap<String, Arc<OfNamespace>>>);

/// What is known of the Secrets of one namespace.
#[derive(Debug, Default)]
struct OfNamespace {
    owned: Owned<Token>,
    /// The reports of servers, which are not in `owned`.
    reports: KeptReports,
    /// Whether all Secrets of the namespace are known.
    filled: watch::Sender<bool>,
}

impl Secrets {
    /// Returns what is known of a Secret that is wanted with a digest.
    pub(crate) fn knowledge(&self, namespace: &str, name: &str, digest: u128) -> Knowledge<Token> {
        let Some(found) = self.known(namespace) else { return Knowledge::Unknown };
        match found.owned.knowledge(&key(namespace, name), digest) {
            Knowledge::Missing if !*found.filled.borrow() => Knowledge::Unknown,
            knowledge => knowledge,
        }
    }

    fn known(&self, namespace: &str) -> Option<Arc<OfNamespace>> {
        self.0.read().get(namespace).cloned()
    }

    fn of(&self, namespace: &str) -> Arc<OfNamespace> {
        self.known(namespace).unwrap_or_else(|| Arc::clone(self.0.write().entry(namespace.to_owned()).or_default()))
    }

    /// Records that a Secret is as wanted with a digest, and which token it has. `metadata` is that of the Secret as it was
    /// read or written.
    pub(crate) fn verify(&self, metadata: &ObjectMeta, digest: u128, token: Option<Token>) {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let key = key(namespace, metadata.name.as_deref().unwrap_or_default());
        self.of(namespace).owned.verify_with(key, Self::version(metadata), digest, token);
    }

    /// Returns the version of a Secret that was read or written.
    pub(crate) fn version(metadata: &ObjectMeta) -> Version {
        Version::of(metadata, "")
    }

    /// Whether the newest version of a Secret that the watch has delivered is this one.
    pub(crate) fn has_version(&self, namespace: &str, name: &str, version: Version) -> bool {
        self.known(namespace).is_some_and(|found| found.owned.has_version(&key(namespace, name), version))
    }

    /// Whether the watch shows a Secret of ours with a name.
    pub(crate) fn shows(&self, namespace: &str, name: &str) -> bool {
        self.known(namespace).is_some_and(|found| found.owned.has(&key(namespace, name)))
    }

    /// Returns the Secrets of ours in a namespace that have a label with a UID.
    pub(crate) fn with_label(&self, namespace: &str, label: &'static str, uid: &str) -> Vec<(Key, Meta)> {
        self.known(namespace).map(|found| found.owned.with_label(label, uid)).unwrap_or_default()
    }

    /// Records that a Secret has to be read: there is one of that name, and it is not ours.
    pub(crate) fn doubt(&self, namespace: &str, name: &str) {
        self.of(namespace).owned.doubt(key(namespace, name));
    }

    /// Waits until the Secrets of a namespace are known, and returns the reports of servers that are kept in them.
    pub(crate) async fn kept_reports(&self, namespace: &str) -> Vec<KeptReport> {
        loop {
            let mut filled = self.of(namespace).filled.subscribe();
            // Otherwise the namespace was forgotten meanwhile.
            if filled.wait_for(|filled| *filled).await.is_ok() {
                return self.of(namespace).reports.all();
            }
        }
    }

    /// Returns the report of a server that is kept in the Secret with this name, as far as is known.
    pub(crate) fn kept_report(&self, namespace: &str, name: &str) -> Option<KeptReport> {
        self.known(namespace)?.reports.get(name)
    }

    /// Records that a report was written.
    pub(crate) fn note_report(&self, namespace: &str, name: &str, report: KeptReport) {
        self.of(namespace).reports.insert(name, report);
    }

    /// Applies an event of the watch of a namespace. `listed` has the Secrets of a full list that has not ended yet.
    /// Returns the labels of the Secret that changed.
    fn apply(
        &self,
        namespace: &str,
        listed: &mut HashSet<Key>,
        event: Event<PartialObjectMeta<Secret>>,
    ) -> Vec<Arc<OwnerLabels>> {
        match event {
            Event::Init => {
                listed.clear();
                vec![]
            }
            Event::InitApply(secret) => {
                listed.insert(key(namespace, &secret.name_any()));
                self.put(namespace, &secret)
            }
            Event::InitDone => {
                let found = self.of(namespace);
                found.reports.retain(listed);
                let gone = found.owned.retain_if(|key| listed.contains(key));
                found.filled.send_replace(true);
                gone
            }
            Event::Apply(secret) => self.put(namespace, &secret),
            Event::Delete(secret) if KeptReports::holds(&secret.metadata) => {
                self.of(namespace).reports.remove(&secret.name_any());
                vec![]
            }
            Event::Delete(secret) => {
                self.of(namespace).owned.remove(&key(namespace, &secret.name_any()));
                vec![owner_labels(&secret.metadata)]
            }
        }
    }

    fn put(&self, namespace: &str, secret: &PartialObjectMeta<Secret>) -> Vec<Arc<OwnerLabels>> {
        if KeptReports::holds(&secret.metadata) {
            // No controller makes these, so none is told.
            self.of(namespace).reports.put(&secret.name_any(), &secret.metadata);
            return vec![];
        }
        let labels = owner_labels(&secret.metadata);
        let meta = Meta { uid: secret.uid().unwrap_or_default(), labels: Arc::clone(&labels) };
        let key = key(namespace, &secret.name_any());
        self.of(namespace).owned.put(key, meta, Self::version(&secret.metadata), None);
        vec![labels]
    }

    /// Applies an event of the watch that there is a Secret.
    #[cfg(test)]
    pub(crate) fn show(&self, namespace: &str, secret: &PartialObjectMeta<Secret>) {
        self.put(namespace, secret);
    }

    /// Forgets the Secrets of a namespace that is not watched any more.
    fn forget(&self, namespace: &str) {
        self.0.write().remove(namespace);
    }
}

fn key(namespace: &str, name: &str) -> Key {
    Key { kind: "Secret".into(), namespace: namespace.into(), name: name.into() }
}

/// Runs a watch for `own`, the operator's namespace, and for every namespace of a tenant to which the operator has access.
/// Never returns; dropping it ends all watches.
pub(crate) async fn watch_secrets(client: Client, own: String, cache: Cache) {
    let mut changes = cache.subscribe();
    let starting = Arc::new(Semaphore::new(MAX_STARTING));
    let mut watches = Watches { client, own, cache, starting, tasks: JoinSet::new(), running: HashMap::new() };
    // What is known from an earlier term is outdated.
    watches.cache.secrets.0.write().clear();
    watches.update_all();
    loop {
        match changes.recv().await {
            Ok(Change::Namespace(namespace)) => watches.update(&namespace),
            Ok(Change::Owned(found)) => {
                let is_access = found.get(labels::COMPONENT) == Some("access");
                let tenant = found.get(labels::TENANT_UID).filter(|_| is_access);
                if let Some(tenant) = tenant.and_then(|uid| watches.cache.tenant_by_uid(uid)) {
                    watches.update(&tenant.spec.namespace.name);
                    watches.update(&tenant.runtime_namespace());
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => watches.update_all(),
            Err(RecvError::Closed) => return,
        }
        while let Some(joined) = watches.tasks.try_join_next() {
            ended(joined);
        }
    }
}

/// The running watches.
struct Watches {
    client: Client,
    own: String,
    cache: Cache,
    /// Permits to start.
    starting: Arc<Semaphore>,
    tasks: JoinSet<()>,
    running: HashMap<String, AbortHandle>,
}

impl Watches {
    fn update_all(&mut self) {
        let found = self.cache.namespaces.all().into_iter().map(|namespace| namespace.name_any());
        let all: HashSet<String> = found.chain(self.running.keys().cloned()).chain([self.own.clone()]).collect();
        for namespace in &all {
            self.update(namespace);
        }
    }

    /// Starts or ends the watch of a namespace.
    fn update(&mut self, namespace: &str) {
        let cache = &self.cache;
        let is_tenants = || cache.namespaces.get("", namespace).is_some() && cache.has_access(namespace);
        if *namespace == self.own || is_tenants() {
            if !self.running.contains_key(namespace) {
                let starting = Arc::clone(&self.starting);
                let task = watch(self.client.clone(), namespace.to_owned(), cache.clone(), starting);
                self.running.insert(namespace.to_owned(), self.tasks.spawn(task));
            }
        } else if let Some(task) = self.running.remove(namespace) {
            task.abort();
            cache.secrets.forget(namespace);
        }
    }
}

async fn watch(client: Client, namespace: String, cache: Cache, starting: Arc<Semaphore>) {
    // The semaphore is never closed.
    let mut permit = starting.acquire_owned().await.ok();
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().labels(labels::MANAGED_SELECTOR);
    let mut stream = watcher(api, config).default_backoff().boxed();
    let mut listed = HashSet::new();
    while let Some(event) = stream.next().await {
        // A list that fails is tried again after a pause, and must not hold up the others.
        if matches!(event, Ok(Event::InitDone) | Err(_)) {
            drop(permit.take());
        }
        match event {
            Ok(event) => {
                for labels in cache.secrets.apply(&namespace, &mut listed, event) {
                    cache.announce(Change::Owned(labels));
                }
            }
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a watch of Secrets was interrupted and is resumed"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn secret(version: &str) -> PartialObjectMeta<Secret> {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "tls", "namespace": "acme-mcp", "uid": "o-1",
            "resourceVersion": version}}))
        .unwrap()
    }

    #[test]
    fn a_secret_is_known_while_the_watch_shows_no_other_version() {
        let (secrets, mut listed) = (Secrets::default(), HashSet::new());
        let mut apply = |event| secrets.apply("acme-mcp", &mut listed, event);
        let knowledge = || secrets.knowledge("acme-mcp", "tls", 7);
        assert_eq!(knowledge(), Knowledge::Unknown, "before the first list");
        apply(Event::Init);
        apply(Event::InitDone);
        assert_eq!(knowledge(), Knowledge::Missing);
        secrets.verify(&secret("5").metadata, 7, None);
        assert_eq!(knowledge(), Knowledge::AsWanted(None));
        apply(Event::Apply(secret("5")));
        assert_eq!(knowledge(), Knowledge::AsWanted(None));
        apply(Event::Apply(secret("6")));
        assert_eq!(knowledge(), Knowledge::Unknown);
        secrets.verify(&secret("6").metadata, 7, None);
        apply(Event::Delete(secret("7")));
        assert_eq!(knowledge(), Knowledge::Missing);
        secrets.doubt("acme-mcp", "tls");
        assert_eq!(knowledge(), Knowledge::Unknown, "someone else's");
        secrets.verify(&secret("8").metadata, 7, None);
        secrets.forget("acme-mcp");
        assert_eq!(knowledge(), Knowledge::Unknown);
    }

    fn report(digest: &str, uid: &str) -> PartialObjectMeta<Secret> {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "mcp-files-report", "namespace": "acme-mcp",
            "labels": {labels::COMPONENT: labels::SERVER_REPORT, labels::SERVER_UID: uid},
            "annotations": {labels::REPORT_DIGEST: digest.repeat(32)}}}))
        .unwrap()
    }

    #[tokio::test]
    async fn kept_reports_are_known_by_their_digests_once_the_secrets_were_listed() {
        let (secrets, mut listed) = (Secrets::default(), HashSet::new());
        let mut apply =
            |event| assert!(secrets.apply("acme-mcp", &mut listed, event).is_empty(), "a controller is told");
        let kept = || secrets.kept_reports("acme-mcp").now_or_never();
        let known = |digest, uid: &str| Some(vec![KeptReport { server_uid: uid.into(), digest: [digest; 32] }]);
        apply(Event::Init);
        apply(Event::InitApply(report("0a", "s-1")));
        assert_eq!(kept(), None, "there may be more");
        apply(Event::InitDone);
        assert_eq!(kept(), known(10, "s-1"));
        apply(Event::Apply(report("0b", "s-1")));
        assert_eq!(kept(), known(11, "s-1"));
        secrets.note_report("acme-mcp", "mcp-files-report", KeptReport { server_uid: "s-2".into(), digest: [12; 32] });
        assert_eq!(kept(), known(12, "s-2"), "it was written here");
        apply(Event::Apply(report("edited", "s-2")));
        assert_eq!(kept(), Some(vec![]), "it has to be written again");
        apply(Event::Apply(report("0c", "s-2")));
        apply(Event::Delete(report("0c", "s-2")));
        assert_eq!(kept(), Some(vec![]));
        apply(Event::Apply(report("0d", "s-2")));
        apply(Event::Init);
        apply(Event::InitDone);
        assert_eq!(kept(), Some(vec![]), "a full list does not have it");
        assert_eq!(secrets.knowledge("acme-mcp", "mcp-files-report", 7), Knowledge::Missing);
    }

    #[tokio::test]
    async fn a_gateway_that_waits_for_kept_reports_survives_that_their_namespace_is_forgotten() {
        let (secrets, mut listed) = (Secrets::default(), HashSet::new());
        let mut waiting = Box::pin(secrets.kept_reports("acme-mcp"));
        assert_eq!(futures::poll!(&mut waiting), std::task::Poll::Pending);
        secrets.forget("acme-mcp");
        assert_eq!(futures::poll!(&mut waiting), std::task::Poll::Pending);
        secrets.apply("acme-mcp", &mut listed, Event::InitDone);
        assert_eq!(waiting.await, vec![]);
    }
}
