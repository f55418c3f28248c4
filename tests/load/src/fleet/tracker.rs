//! Watches the objects of our kinds, and records which are as they should be and how often each status was written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::TryStreamExt as _;
use http::Request;
use kube::Client;
use kube::core::WatchEvent;
use mcp_fleet_crds::condition::pending_status;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::objects::GROUP;

/// Our kinds that the fleet has, in plural.
const KINDS: [&str; 4] = ["mcptenants", "mcpservers", "mcpscopes", "mcpprincipals"];

/// An object, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) generation: i64,
    pub(super) resource_version: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Seen {
    status: Value,
    is_ready: bool,
    writes: usize,
}

#[derive(Debug, Default)]
struct State {
    objects: HashMap<String, Seen>,
    ready: usize,
}

/// What was seen of the objects of our kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker(Arc<Mutex<State>>);

/// How often the operator wrote the statuses of a set of objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusWrites {
    pub(crate) mean: f64,
    pub(crate) most: usize,
}

impl Tracker {
    /// Starts to watch. The watches run until the tasks are dropped.
    pub(crate) fn start(client: &Client, tasks: &mut JoinSet<()>) -> Self {
        let tracker = Self::default();
        for kind in KINDS {
            let tracker = tracker.clone();
            tasks.spawn(watch(
                client.clone(),
                format!("{GROUP}/{kind}"),
                move |event: WatchEvent<Object>| match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        let version = object.metadata.resource_version.clone();
                        tracker.see(kind, object);
                        Some(version)
                    }
                    WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                    _ => None,
                },
            ));
        }
        tracker
    }

    fn see(&self, kind: &str, object: Object) {
        let Object { metadata, status } = object;
        let is_ready =
            is_true(&status, "Ready", metadata.generation) && is_true(&status, "PolicyCurrent", metadata.generation);
        let mut state = self.0.lock();
        let State { objects, ready } = &mut *state;
        // The API server gives a new object this status.
        let seen = objects
            .entry(format!("{kind}/{}/{}", metadata.namespace, metadata.name))
            .or_insert_with(|| Seen { status: pending_status(), ..Seen::default() });
        *ready = *ready + usize::from(is_ready) - usize::from(seen.is_ready);
        seen.is_ready = is_ready;
        if seen.status != status {
            seen.writes += 1;
            seen.status = status;
        }
    }

    /// Returns how many objects were seen, and how many of them are ready as they are written.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.objects.len(), state.ready)
    }

    /// Waits until this many objects are ready as they are written. Returns how long that took.
    pub(crate) async fn converged(&self, count: usize, limit: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut reported = Instant::now();
        loop {
            let (seen, ready) = self.progress();
            if ready >= count {
                return Ok(started.elapsed());
            }
            if started.elapsed() > limit {
                bail!("{ready} of {count} objects were ready after {} s; {}", limit.as_secs(), self.unready());
            }
            if reported.elapsed() > Duration::from_secs(15) {
                eprintln!("         {ready} of {seen} objects are ready");
                reported = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Describes an object that is not ready.
    fn unready(&self) -> String {
        let state = self.0.lock();
        let found = state.objects.iter().find(|(_, seen)| !seen.is_ready);
        found.map_or_else(String::new, |(name, seen)| format!("{name}: {}", seen.status["conditions"]))
    }

    /// Returns the status writes of all objects.
    pub(crate) fn status_writes(&self) -> StatusWrites {
        let state = self.0.lock();
        let counts = || state.objects.values().map(|seen| seen.writes);
        #[allow(clippy::cast_precision_loss, reason = "counts of objects are far below 2^53")]
        let mean = counts().sum::<usize>() as f64 / state.objects.len().max(1) as f64;
        StatusWrites { mean, most: counts().max().unwrap_or_default() }
    }

    /// Returns which statuses were written, and how often, since the last call.
    pub(crate) fn take_writes(&self) -> usize {
        let mut state = self.0.lock();
        state.objects.values_mut().map(|seen| std::mem::take(&mut seen.writes)).sum()
    }
}

fn is_true(status: &Value, kind: &str, generation: i64) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| {
        it["type"] == kind && it["status"] == "True" && it["observedGeneration"].as_i64().unwrap_or(0) >= generation
    })
}

/// Watches a collection from its beginning, and again when the watch ends. `handle` returns the version of the event.
pub(super) async fn watch<T>(client: Client, path: String, handle: impl Fn(WatchEvent<T>) -> Option<String>)
where
    T: Clone + serde::de::DeserializeOwned + Send + 'static,
{
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut version = "0".to_owned();
    loop {
        let uri = format!("{path}{separator}watch=true&allowWatchBookmarks=true&resourceVersion={version}");
        let Ok(request) = Request::get(uri).body(Vec::new()) else { return };
        if let Ok(events) = client.request_events::<T>(request).await {
            let mut events = std::pin::pin!(events);
            while let Ok(Some(event)) = events.try_next().await {
                version = handle(event).unwrap_or(version);
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
