//! This version with the operator, the gateways and the shims of an earlier commit: each is replaced while the others stay,
//! in both directions. After every step calls are answered, and a suspension is enforced.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_e2e::{Answer, Caller, OPERATOR, until};
use serde_json::{Value, json};

const TENANTS: [&str; 2] = ["north", "south"];
const SCRIPT: &str = include_str!("../fixtures/hostile.py");
const DEPLOYMENT: &str = "mcp-fleet-operator";
/// A second Deployment of the operator, with the other version.
const OTHER: &str = "mcp-fleet-operator-other";
/// How long an effect on the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Number of calls so far.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// One of the two versions: the tag of its images.
const EARLIER: &str = "earlier";
const THIS: &str = "dev";

struct Fleet {
    client: Client,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test upgrade`"))
}

impl Fleet {
    /// Installs the charts of a version, with the operator of that version and with `pods` of a version.
    async fn install(&self, operator: &str, pods: &str, more: &[&str]) {
        let charts =
            variable(if operator == EARLIER { "MCP_FLEET_TEST_EARLIER_CHARTS" } else { "MCP_FLEET_TEST_CHARTS" });
        let helm = |chart: &str, options: &[String]| {
            let mut helm = Command::new(variable("MCP_FLEET_TEST_HELM"));
            helm.args(["upgrade", "--install", chart, &format!("{charts}/{chart}")]);
            run(helm.args(["--namespace", OPERATOR, "--create-namespace"]).args(options));
        };
        // CRDs are upgraded first, and not taken back.
        if operator == THIS || self.operators().await.is_empty() {
            helm("mcp-fleet-crds", &[]);
        }
        let images = [
            format!("image=mcp-fleet.local/operator:{operator}"),
            format!("mcpPodImage=mcp-fleet.local/mcp-pod:{pods}"),
        ];
        let values = images.iter().map(String::as_str).chain(more.iter().copied());
        helm("mcp-fleet", &values.flat_map(|value| ["--set".to_owned(), value.to_owned()]).collect::<Vec<_>>());
        rolled_out(DEPLOYMENT);
    }

    async fn operators(&self) -> Vec<Deployment> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR);
        api.list(&ListParams::default()).await.unwrap().items
    }

    async fn apply(&self, namespace: Option<&str>, kind: &str, name: &str, spec: &Value) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mcp-fleet.dev", "v1alpha1", kind));
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let object = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name}, "spec": spec});
        // The namespace of a new tenant does not exist at once.
        until(format!("{kind} {name} to be applied"), TIMEOUT, || async {
            api.patch(name, &PatchParams::apply("upgrade-test").force(), &Patch::Apply(&object)).await?;
            Ok(Some(()))
        })
        .await
        .unwrap();
    }

    async fn create_tenants(&self) {
        for tenant in TENANTS {
            let images = json!({"allowed": ["**"], "referencePolicy": "Any"});
            self.apply(None, "MCPTenant", tenant, &json!({"namespace": {"name": tenant}, "images": images})).await;
            let stdio = json!({"image": "mcp-fleet.local/server-time:2026.10.19",
                "command": ["python3", "-u", "-c", SCRIPT]});
            let word = json!({"name": "word", "type": "String", "string": {"maxLength": 100}});
            let spec = json!({"source": {"type": "Stdio", "stdio": stdio},
                "tools": [{"name": "echo", "class": "Read", "arguments": [word]}]});
            self.apply(Some(tenant), "MCPServer", "echo", &spec).await;
            let spec = json!({"serverRef": {"name": "echo"}, "classes": ["Read"]});
            self.apply(Some(tenant), "MCPScope", "echo", &spec).await;
            self.apply(Some(tenant), "MCPPrincipal", "caller", &json!({"scopeRefs": [{"name": "echo"}]})).await;
        }
    }

    /// Checks that calls are answered, and that a suspension is enforced and ends.
    async fn check(&self, what: &str) {
        println!("checking: {what}");
        for tenant in TENANTS {
            self.answers(tenant, true).await;
        }
        let [north, _] = TENANTS;
        self.suspend(north, true).await;
        self.answers(north, false).await;
        self.suspend(north, false).await;
        self.answers(north, true).await;
    }

    async fn answers(&self, tenant: &str, wanted: bool) {
        until(format!("calls of {tenant} to be answered: {wanted}"), TIMEOUT, || async {
            let caller = Caller::new(&self.client, tenant, &format!("{tenant}-mcp"), "caller").await?;
            // Another word each time: the same result again and again would be a loop.
            let word = format!("on-{}", CALLS.fetch_add(1, Ordering::Relaxed));
            let answer = caller.call_with_word("echo", "echo", &word).await;
            match (&answer, wanted) {
                (Answer::Text(text), true) if *text == word => Ok(Some(())),
                (Answer::Refused(_) | Answer::Error(_), false) => Ok(Some(())),
                _ => anyhow::bail!("{answer:?}"),
            }
        })
        .await
        .unwrap();
    }

    async fn suspend(&self, tenant: &str, suspend: bool) {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        let tenants: Api<MCPTenant> = Api::all(self.client.clone());
        tenants.patch(tenant, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Returns the image that the gateway and the shim of a tenant run.
    async fn images(&self, tenant: &str) -> Vec<String> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &format!("{tenant}-mcp"));
        let mut images = Vec::new();
        for name in ["gateway", "mcp-echo"] {
            let pod = api.get(name).await.unwrap().spec.unwrap().template.spec.unwrap();
            let containers = pod.init_containers.into_iter().flatten().chain(pod.containers);
            let image = containers.filter_map(|container| container.image).find(|image| image.contains("/mcp-pod:"));
            images.push(image.unwrap());
        }
        images
    }

    async fn assert_images(&self, tag: &str) {
        for tenant in TENANTS {
            let image = format!("mcp-fleet.local/mcp-pod:{tag}");
            assert_eq!(self.images(tenant).await, [image.clone(), image], "{tenant}");
        }
    }

    async fn wait_for_rollout(&self, reason: &str) {
        let tenants: Api<MCPTenant> = Api::all(self.client.clone());
        for tenant in TENANTS {
            until(format!("PodsCurrent of {tenant} to be {reason}"), TIMEOUT, || async {
                let conditions = tenants.get(tenant).await?.status.map(|status| status.conditions).unwrap_or_default();
                let found = conditions.into_iter().find(|condition| condition.type_ == "PodsCurrent");
                anyhow::ensure!(found.as_ref().is_some_and(|found| found.reason == reason), "{found:?}");
                Ok(Some(()))
            })
            .await
            .unwrap();
        }
    }

    /// Starts one replica of the operator of a version beside the Deployment.
    async fn start_other(&self, tag: &str) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR);
        let mut other = serde_json::to_value(api.get(DEPLOYMENT).await.unwrap()).unwrap();
        other["metadata"] = json!({"name": OTHER});
        other.as_object_mut().unwrap().remove("status");
        other["spec"]["replicas"] = json!(1);
        for labels in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
            other.pointer_mut(labels).unwrap()["version"] = json!("other");
        }
        let container = &mut other["spec"]["template"]["spec"]["containers"][0];
        container["image"] = json!(format!("mcp-fleet.local/operator:{tag}"));
        // Flags that only one version knows.
        let flags = container["args"].as_array().unwrap().iter();
        let known = flags.filter(|flag| !flag.as_str().unwrap().starts_with("--rollout-")).cloned().collect();
        container["args"] = Value::Array(known);
        api.create(&PostParams::default(), &serde_json::from_value(other).unwrap()).await.unwrap();
        rolled_out(OTHER);
    }

    async fn scale(&self, deployment: &str, replicas: i32) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch(deployment, &PatchParams::default(), &patch).await.unwrap();
        rolled_out(deployment);
    }

    /// Waits until a pod of a Deployment leads.
    async fn wait_for_leader(&self, deployment: &str) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), OPERATOR);
        until(format!("{deployment} to lead"), TIMEOUT, || async {
            let holder = leases.get("mcp-fleet-operator").await?.spec.and_then(|spec| spec.holder_identity);
            let is_other = holder.as_ref().is_some_and(|holder| holder.starts_with(OTHER));
            let leads = holder.is_some_and(|holder| !holder.is_empty()) && is_other == (deployment == OTHER);
            Ok(leads.then_some(()))
        })
        .await
        .unwrap();
    }

    /// Returns how often the operator reported tampering.
    async fn put_back(&self) -> usize {
        let events: Api<Event> = Api::all(self.client.clone());
        let found = events.list(&ListParams::default()).await.unwrap();
        found.into_iter().filter(|event| event.reason.as_deref() == Some("PutBack")).count()
    }
}

fn rolled_out(deployment: &str) {
    let name = format!("deployment/{deployment}");
    run(Command::new("kubectl").args(["rollout", "status", &name, "-n", OPERATOR, "--timeout=180s"]));
}

#[tokio::test]
async fn adjacent_versions_work_together_while_they_replace_each_other() {
    let fleet = Fleet { client: mcp_fleet_e2e::client().await.unwrap() };
    fleet.install(EARLIER, EARLIER, &[]).await;
    fleet.create_tenants().await;
    fleet.check("the earlier version alone").await;

    fleet.install(THIS, EARLIER, &[]).await;
    fleet.check("this operator with earlier gateways and shims").await;
    fleet.assert_images(EARLIER).await;
    assert_eq!(fleet.put_back().await, 0, "an upgrade was reported as tampering");

    fleet.install(THIS, THIS, &["rollout.paused=true"]).await;
    fleet.wait_for_rollout("RolloutPending").await;
    fleet.assert_images(EARLIER).await;
    fleet.install(THIS, THIS, &["rollout.maxUnavailable=1"]).await;
    fleet.wait_for_rollout("UpToDate").await;
    fleet.assert_images(THIS).await;
    fleet.check("this version alone").await;
    assert_eq!(fleet.put_back().await, 0, "a rollout was reported as tampering");

    // Replicas of both versions.
    fleet.start_other(EARLIER).await;
    fleet.scale(DEPLOYMENT, 0).await;
    fleet.wait_for_leader(OTHER).await;
    fleet.scale(DEPLOYMENT, 1).await;
    fleet.check("an earlier leader with a follower, gateways and shims of this version").await;
    fleet.scale(OTHER, 0).await;
    fleet.wait_for_leader(DEPLOYMENT).await;
    fleet.scale(OTHER, 1).await;
    fleet.check("a leader of this version that took over, with an earlier follower").await;
    fleet.assert_images(THIS).await;
    let api: Api<Deployment> = Api::namespaced(fleet.client.clone(), OPERATOR);
    api.delete(OTHER, &kube::api::DeleteParams::default()).await.unwrap();

    fleet.install(EARLIER, THIS, &[]).await;
    fleet.check("the earlier operator with gateways and shims of this version").await;
    fleet.install(EARLIER, EARLIER, &[]).await;
    fleet.check("the earlier version again").await;
}
