//! Why the pods of a server are not ready: what Kubernetes says about them, and what the server said last.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use mcp_fleet_core::labels;
use mcp_fleet_core::server_config::Source;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, find};
use serde_json::Value;

use super::desired::TOOL;
use super::validate::Server;
use crate::context::Context;
use crate::controllers::error::ReconcileError;

/// How long pods may take before it is asked what they wait for. Most are ready sooner.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is asked again.
const AGAIN: Duration = Duration::from_secs(15);
/// The same, after [`LONG`].
const AGAIN_LATER: Duration = Duration::from_secs(60);
/// From when on a change is not expected soon.
const LONG: Duration = Duration::from_secs(120);

/// Longest text of others in a message, in characters.
const MAX_TEXT: usize = 400;
/// Lines and bytes of a log that are read.
const LOG_LINES: i64 = 200;
const LOG_BYTES: i64 = 64 << 10;
/// Lines of the server's standard error in a message.
const OUTPUT_LINES: usize = 3;

/// Why pods are not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    pub reason: Reason,
    pub message: String,
}

impl Diagnosis {
    /// Returns what a status says that was written for this generation.
    pub(super) fn before(conditions: &[Condition], generation: Option<i64>) -> Option<Self> {
        let ready = find(conditions, ConditionType::Ready).filter(|ready| ready.observed_generation == generation)?;
        let known = [Reason::ImageNotPulled, Reason::Unschedulable, Reason::PodRefused, Reason::StartFailed];
        let reason = known.into_iter().find(|reason| reason.as_str() == ready.reason)?;
        Some(Self { reason, message: ready.message.split_once(": ")?.1.to_owned() })
    }
}

/// What is known of pods without their logs.
#[derive(Debug, PartialEq, Eq)]
enum OfPods {
    Known(Diagnosis),
    /// The program of this pod was started and takes no calls.
    Starting(String),
    /// There are no pods, or nothing can be said about them.
    Nothing,
}

/// Returns how soon a server that has not been available since `since` is looked at again, and whether it is time to ask
/// what it waits for.
pub(super) fn when(since: Timestamp, now: Timestamp) -> (Duration, bool) {
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match GRACE.saturating_sub(waited) {
        Duration::ZERO if waited < LONG => (AGAIN, true),
        Duration::ZERO => (AGAIN_LATER, true),
        left => (left, false),
    }
}

/// Asks why the pods of a server are not ready. None if nobody knows.
pub(super) async fn diagnose(ctx: &Context, server: &Server) -> Result<Option<Diagnosis>, ReconcileError> {
    let namespace = &server.runtime_namespace;
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let selector = format!("{}={}", labels::SERVER_UID, server.id.uid);
    let pods = api.list(&ListParams::default().labels(&selector)).await;
    match of_pods(&pods.map_err(ReconcileError::api("list the pods"))?.items) {
        OfPods::Known(diagnosis) => Ok(Some(diagnosis)),
        OfPods::Starting(pod) => {
            let params = LogParams {
                container: Some(TOOL.into()),
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                ..LogParams::default()
            };
            match api.logs(&pod, &params).await {
                Ok(log) => Ok(Some(of_log(&log, may_know_secrets(server)))),
                // The pod may have ended meanwhile.
                Err(kube::Error::Api(_)) => Ok(None),
                Err(source) => Err(ReconcileError::Api { verb: "read the log of a pod", source }),
            }
        }
        OfPods::Nothing => {
            let api: Api<Event> = Api::namespaced(ctx.client.clone(), namespace);
            // Of a StatefulSet of this name, and of the ReplicaSets of a Deployment, whose names begin with it.
            let events = api.list(&ListParams::default().fields("reason=FailedCreate").limit(100)).await;
            let events = events.map_err(ReconcileError::api("list Events"))?;
            Ok(of_events(&events.items, &server.object_name()))
        }
    }
}

/// Whether the program of a server gets anything of a Secret, as far as is known.
fn may_know_secrets(server: &Server) -> bool {
    server.config.as_ref().is_none_or(|found| found.0.keys().any(|source| matches!(source, Source::Secret(_))))
}

/// Returns what the newest pod that is not ready waits for.
fn of_pods(pods: &[Pod]) -> OfPods {
    let is_ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let waiting = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && !is_ready(pod));
    let newest = waiting.max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    newest.map_or(OfPods::Nothing, of_pod)
}

fn of_pod(pod: &Pod) -> OfPods {
    let Some(status) = &pod.status else { return OfPods::Nothing };
    let known = |reason, message: String| OfPods::Known(Diagnosis { reason, message });
    let unscheduled = status.conditions.iter().flatten().find(|it| it.type_ == "PodScheduled" && it.status == "False");
    if let Some(condition) = unscheduled {
        let why = text(condition.message.as_deref().unwrap_or_default());
        return known(Reason::Unschedulable, format!("no node takes its pod: {why}"));
    }
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let mut running = None;
    for container in all {
        let ContainerStatus { name, state, last_state, .. } = container;
        let what = if name == TOOL { "image" } else { "image of mcp-pod" };
        match state {
            Some(ContainerState { waiting: Some(waiting), .. }) => {
                let why = waiting.message.as_deref().unwrap_or_default();
                match waiting.reason.as_deref().unwrap_or_default() {
                    "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                        // Both states that alternate say this.
                        let why = why.split_once("ErrImagePull: ").map_or(why, |(_, why)| why);
                        return known(Reason::ImageNotPulled, format!("its {what} cannot be pulled: {}", text(why)));
                    }
                    "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                        return known(Reason::StartFailed, format!("its container cannot be created: {}", text(why)));
                    }
                    "CrashLoopBackOff" => return known(Reason::StartFailed, ended(last_state.as_ref())),
                    _ => {}
                }
            }
            Some(ContainerState { running: Some(_), .. }) if name == TOOL => {
                running = Some(pod.name_any());
            }
            _ => {}
        }
    }
    running.map_or(OfPods::Nothing, OfPods::Starting)
}

/// Returns how a container ended that is started again and again.
fn ended(state: Option<&ContainerState>) -> String {
    let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) else {
        return "its container ends again and again".to_owned();
    };
    let reason = terminated.reason.as_deref().unwrap_or("Error");
    format!("its container ends again and again: {} (exit code {})", text(reason), terminated.exit_code)
}

/// Returns why no pod is created.
fn of_events(events: &[Event], workload: &str) -> Option<Diagnosis> {
    let is_of_workload = |event: &&Event| {
        let object = &event.involved_object;
        let name = object.name.as_deref().unwrap_or_default();
        match object.kind.as_deref() {
            Some("StatefulSet") => name == workload,
            Some("ReplicaSet") => name.rsplit_once('-').is_some_and(|(deployment, _)| deployment == workload),
            _ => false,
        }
    };
    let at = |event: &&Event| {
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
        series.or(event.last_timestamp.as_ref().map(|time| time.0)).or(event.event_time.as_ref().map(|time| time.0))
    };
    let newest = events.iter().filter(is_of_workload).max_by_key(at)?;
    let why = newest.message.as_deref().unwrap_or_default();
    // The name of the pod that was not created differs each time.
    let why = why.split_once(" is forbidden: ").map_or(why, |(_, why)| why);
    let reason = if why.contains("exceeded quota") { Reason::QuotaExceeded } else { Reason::PodRefused };
    Some(Diagnosis { reason, message: format!("Kubernetes does not create its pod: {}", text(why)) })
}

/// Returns why a program takes no calls, from the log of the shim. Nothing that the program wrote is shown if it `may_know_secrets`:
/// more people may read statuses than logs.
fn of_log(log: &str, may_know_secrets: bool) -> Diagnosis {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let end = lines.iter().rposition(|line| line["fields"]["message"] == "the server is not running");
    let Some((index, end)) = end.and_then(|index| Some((index, lines.get(index)?))) else {
        let message = "its program was started, and has not listed its tools yet".to_owned();
        return Diagnosis { reason: Reason::WorkloadUnavailable, message };
    };
    let why = end["fields"]["error"].as_str().unwrap_or_default();
    // What follows may be of an answer of the program.
    let why = if may_know_secrets { why.split(": ").next().unwrap_or_default() } else { why };
    let mut message = format!("its program does not start: {}", text(why));
    let written =
        lines.iter().take(index).rev().take_while(|line| line["fields"]["message"] != "the server is not running");
    let mut output: Vec<&str> = written
        .filter_map(|line| line["fields"]["stderr"].as_str().or_else(|| line["fields"]["stdout"].as_str()))
        .collect();
    output.retain(|line| !line.trim().is_empty());
    output.truncate(OUTPUT_LINES);
    output.reverse();
    if may_know_secrets {
        message.push_str("; the log of its pod says more");
    } else if !output.is_empty() {
        let _ = write!(message, "; it wrote last: {}", text(&output.join(" ⏎ ")));
    }
    Diagnosis { reason: Reason::StartFailed, message }
}

/// Returns a text of others as part of a message: one line, without what a terminal would act on, and not too long.
fn text(original: &str) -> String {
    let is_shown = |c: &char| {
        !c.is_control()
            && !matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let spaced = original.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(is_shown);
    let mut short: String = spaced.clone().take(MAX_TEXT).collect();
    if spaced.count() > MAX_TEXT {
        short.push('…');
    }
    short.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, second: u32, status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-11-22T12:00:{second:02}Z")},
            "status": status,
        }))
        .unwrap()
    }

    fn tool(state: &Value) -> Value {
        json!({"containerStatuses": [{
            "name": "tool", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            "lastState": {"terminated": {"exitCode": 1, "reason": "OOMKilled"}},
        }]})
    }

    fn waiting(reason: &str, message: &str) -> OfPods {
        of_pods(&[pod("a", 1, &tool(&json!({"waiting": {"reason": reason, "message": message}})))])
    }

    fn known(found: OfPods) -> (Reason, String) {
        match found {
            OfPods::Known(Diagnosis { reason, message }) => (reason, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_pod_that_is_not_ready_counts() {
        let running = tool(&json!({"running": {}}));
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let unscheduled =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: too\nsmall"}]});
        let pods = [pod("old", 1, &running), pod("new", 3, &ready), pod("middle", 2, &unscheduled)];
        let expected = (Reason::Unschedulable, "no node takes its pod: 0/1 nodes: too small".to_owned());
        assert_eq!(known(of_pods(&pods)), expected);
        assert_eq!(of_pods(&pods[..2]), OfPods::Starting("old".into()));
        assert_eq!(of_pods(&[pod("new", 3, &ready)]), OfPods::Nothing);
    }

    #[test]
    fn both_states_of_an_image_that_cannot_be_pulled_say_the_same() {
        let why = "failed to resolve r.example/x: not found";
        let backing_off = format!("Back-off pulling image \"r.example/x\": ErrImagePull: {why}");
        let expected = (Reason::ImageNotPulled, format!("its image cannot be pulled: {why}"));
        assert_eq!(known(waiting("ErrImagePull", why)), expected);
        assert_eq!(known(waiting("ImagePullBackOff", &backing_off)), expected);
        assert_eq!(waiting("ContainerCreating", ""), OfPods::Nothing);
        let crashed = (Reason::StartFailed, "its container ends again and again: OOMKilled (exit code 1)".to_owned());
        assert_eq!(known(waiting("CrashLoopBackOff", "back-off 20s")), crashed);
    }

    #[test]
    fn a_pod_that_the_quota_refuses_is_explained() {
        let event = |kind: &str, name: &str, time: &str, message: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "involvedObject": {"kind": kind, "name": name}, "message": message, "lastTimestamp": time,
            }))
            .unwrap()
        };
        let quota = "pods \"mcp-files-7d9-x2\" is forbidden: exceeded quota: tenant, requested: pods=1, used: pods=2";
        let events = [
            event("ReplicaSet", "mcp-files-7d9", "2026-11-22T12:00:02Z", quota),
            event("ReplicaSet", "mcp-files-7d9", "2026-11-22T12:00:01Z", "earlier"),
            event("ReplicaSet", "mcp-files-b-7d9", "2026-11-22T12:00:03Z", "another server"),
            event("StatefulSet", "mcp-notes", "2026-11-22T12:00:03Z", "denied by a webhook"),
        ];
        let found = of_events(&events, "mcp-files").unwrap();
        let message = "Kubernetes does not create its pod: exceeded quota: tenant, requested: pods=1, used: pods=2";
        assert_eq!((found.reason, &*found.message), (Reason::QuotaExceeded, message));
        assert_eq!(of_events(&events, "mcp-notes").unwrap().reason, Reason::PodRefused);
        assert_eq!(of_events(&events, "mcp"), None);
    }

    #[test]
    fn a_program_that_ends_says_why_unless_it_has_secrets() {
        let line = |fields: Value| json!({"level": "INFO", "fields": fields}).to_string();
        let log = [
            line(json!({"stderr": "of the run before"})),
            line(json!({"message": "the server is not running", "error": "the server ended with exit status: 1"})),
            "not JSON".to_owned(),
            line(json!({"stdout": "first"})),
            line(json!({"stderr": "\u{1b}[31mcannot log in"})),
            line(json!({"stderr": ""})),
            line(json!({"stderr": "with the token s3cret\nand\u{202e} more"})),
            line(json!({"stderr": "last"})),
            line(json!({"message": "the server is not running", "error": "the server ended with exit status: 2"})),
            line(json!({"stderr": "of the next run"})),
        ]
        .join("\n");
        let found = of_log(&log, false);
        assert_eq!(found.reason, Reason::StartFailed);
        assert_eq!(
            found.message,
            "its program does not start: the server ended with exit status: 2; it wrote last: [31mcannot log in ⏎ with the \
             token s3cret and more ⏎ last"
        );
        let silent = of_log(&log, true).message;
        assert_eq!(
            silent,
            "its program does not start: the server ended with exit status; the log of its pod says more"
        );
        assert_eq!(of_log("", false).reason, Reason::WorkloadUnavailable);
    }

    #[test]
    fn texts_of_others_are_short() {
        let long = "ä".repeat(1000);
        assert_eq!(text(&long).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn nobody_asks_before_pods_had_time_and_later_less_often() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let asked: Vec<_> = [0, 4, 5, 119, 120].map(|second| when(at(0), at(second))).into();
        let seconds = Duration::from_secs;
        let expected = [(seconds(5), false), (seconds(1), false), (AGAIN, true), (AGAIN, true), (AGAIN_LATER, true)];
        assert_eq!(asked, expected);
    }
}
