//! Events (`events.k8s.io/v1`) for people. An Event that cannot be written is only logged: nothing depends on Events.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use mcp_fleet_core::control_server::Alarms;

/// Writes Events, as one replica of the operator.
#[derive(Clone)]
pub(crate) struct Events {
    client: Client,
    reporter: Reporter,
    /// Merges Events that repeat. For that it keeps each for six minutes, and goes through all of them for each new one.
    warnings: Recorder,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Writes Events as the pod `pod_name`.
    pub(crate) fn new(client: Client, pod_name: &str) -> Self {
        let reporter = Reporter { controller: "mcp-fleet.dev/operator".into(), instance: Some(pod_name.to_owned()) };
        let warnings = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, warnings }
    }

    /// Writes an Event about something that went as intended.
    pub(crate) async fn normal<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(&about.object_ref(&()), EventType::Normal, reason, action, note).await;
    }

    /// Writes an Event about something that a person has to look at.
    pub(crate) async fn warning<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(&about.object_ref(&()), EventType::Warning, reason, action, note).await;
    }

    async fn publish(&self, about: &ObjectReference, type_: EventType, reason: &str, action: &str, mut note: String) {
        // The API accepts 1 kB.
        note.truncate(note.floor_char_boundary(1000));
        let event = Event { type_, reason: reason.into(), note: Some(note), action: action.into(), secondary: None };
        let written = match type_ {
            EventType::Warning => self.warnings.publish(&event, about).await,
            // Each reports a change, and a fleet that starts has tens of thousands of them: nothing to merge, much to keep.
            EventType::Normal => Recorder::new(self.client.clone(), self.reporter.clone()).publish(&event, about).await,
        };
        if let Err(error) = written {
            tracing::debug!(error = &error as &dyn std::error::Error, reason, "failed to write an Event");
        }
    }
}

#[tonic::async_trait]
impl Alarms for Events {
    async fn alarm(&self, about: &ObjectReference, reason: &str, action: &str, note: String) {
        self.publish(about, EventType::Warning, reason, action, note).await;
    }
}
