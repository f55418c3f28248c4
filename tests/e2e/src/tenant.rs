//! The tenant of the fault tests: two servers that can misbehave, `hostile` and `quiet`, and two principals.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use mcp_fleet_crds::condition::{ConditionType, is_true};
use mcp_fleet_crds::{MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Caller, until};

/// Name of the tenant, and of its namespace.
pub const NAMESPACE: &str = "faults";
/// Runtime namespace of the tenant.
pub const RUNTIME: &str = "faults-mcp";

const SCRIPT: &str = include_str!("../fixtures/hostile.py");
const TOOLS: [&str; 10] = ["echo", "mark", "slow", "hang", "crash", "flood", "garbage", "noise", "twice", "wrong"];

/// The tenant, with servers that answer calls.
#[allow(missing_debug_implementations, reason = "the client does not implement Debug")]
pub struct FaultTenant {
    /// API client of the administrator.
    pub client: Client,
}

impl FaultTenant {
    /// Applies the tenant and all its objects, and waits until calls are answered. Can be called again at any time.
    pub async fn ready() -> Result<Self> {
        let client = crate::client().await?;
        let tenant = Self { client };
        tenant.apply().await?;
        for server in ["hostile", "quiet"] {
            let caller = tenant.wait_for_caller("first").await?;
            until(format!("server {server} to answer"), Duration::from_secs(120), || async {
                match caller.call_with_word(server, "echo", "hello").await {
                    crate::Answer::Text(text) if text == "hello" => Ok(Some(())),
                    other => anyhow::bail!("{other:?}"),
                }
            })
            .await?;
        }
        Ok(tenant)
    }

    /// Returns a caller with the current credential of a principal, `first` or `second`.
    pub async fn caller(&self, principal: &str) -> Result<Caller> {
        Caller::new(&self.client, NAMESPACE, RUNTIME, principal).await
    }

    /// Like [`Self::caller`], but waits until the credential has been issued.
    pub async fn wait_for_caller(&self, principal: &str) -> Result<Caller> {
        until(format!("the credential of {principal}"), Duration::from_secs(60), || async {
            self.caller(principal).await.map(Some)
        })
        .await
    }

    async fn apply(&self) -> Result<()> {
        self.apply_one::<MCPTenant>(
            None,
            json!({
                "metadata": {"name": NAMESPACE},
                "spec": {
                    "namespace": {"name": NAMESPACE, "deletionPolicy": "Delete"},
                    "images": {"allowed": ["**"], "referencePolicy": "Any"},
                    "credentials": {"lifetime": "1h", "overlap": "10m"},
                },
            }),
        )
        .await?;
        // Until the tenant is ready, its namespace may take no objects: it gets its label and its quota last, and
        // Kubernetes has to count the quota.
        let tenants: Api<MCPTenant> = Api::all(self.client.clone());
        until("the tenant to be ready", Duration::from_secs(120), || async {
            let status = tenants.get(NAMESPACE).await?.status.unwrap_or_default();
            Ok(is_true(&status.conditions, ConditionType::Ready).then_some(()))
        })
        .await?;
        for name in ["hostile", "quiet"] {
            self.apply_server(name).await?;
        }
        for name in ["first", "second"] {
            self.apply_one::<MCPPrincipal>(
                Some(NAMESPACE),
                json!({
                    "metadata": {"name": name},
                    "spec": {"scopeRefs": [{"name": "hostile-all"}, {"name": "quiet-all"}]},
                }),
            )
            .await?;
        }
        Ok(())
    }

    /// Sets the number of gateways, as `kubectl scale` does.
    pub async fn scale(&self, replicas: usize) -> Result<()> {
        let tenants: Api<MCPTenant> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        tenants.patch_scale(NAMESPACE, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Applies a server that can misbehave, and the scope `<name>-all` with all its tools.
    pub async fn apply_server(&self, name: &str) -> Result<()> {
        let image = self.python_image().await?;
        self.apply_one::<MCPServer>(Some(NAMESPACE), server(name, &image)).await?;
        self.apply_one::<MCPScope>(
            Some(NAMESPACE),
            json!({
                "metadata": {"name": format!("{name}-all")},
                "spec": {"serverRef": {"name": name}, "classes": ["Read", "Write", "Destructive"]},
            }),
        )
        .await?;
        Ok(())
    }

    /// Returns the image of the demo's time server, because it contains a Python interpreter.
    pub async fn python_image(&self) -> Result<String> {
        let servers: Api<MCPServer> = Api::all(self.client.clone());
        let clock =
            servers.list(&ListParams::default()).await?.items.into_iter().find(|server| server.name_any() == "clock");
        let clock = serde_json::to_value(
            clock.context("the server `clock` of the demo does not exist; these tests run after the demo")?,
        )?;
        let image = clock["spec"]["source"]["stdio"]["image"].as_str().context("the server `clock` has no image")?;
        Ok(image.to_owned())
    }

    /// Applies an object, of which `object` has everything but version and kind.
    pub async fn apply_one<K>(&self, namespace: Option<&str>, mut object: Value) -> Result<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        let name = object["metadata"]["name"].as_str().context("the object has no name")?.to_owned();
        // DynamicObject lets one function handle cluster-scoped and namespaced kinds.
        let resource = kube::api::ApiResource::erase::<K>(&());
        let api: Api<kube::api::DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let applied = api.patch(&name, &PatchParams::apply("fault-tests").force(), &Patch::Apply(&object)).await?;
        Ok(applied.try_parse()?)
    }

    /// Returns the pods of a namespace that match a label selector.
    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(pods.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Returns the addresses of pods of a namespace that match a label selector, once there is one.
    ///
    /// # Panics
    /// If there is none within a minute.
    pub async fn addresses(&self, namespace: &str, selector: &str) -> Vec<IpAddr> {
        until(format!("pods with addresses in {namespace}"), Duration::from_secs(60), || async {
            let pods = self.pods(namespace, selector).await?;
            let addresses: Vec<IpAddr> = pods.iter().filter_map(address).collect();
            Ok((!addresses.is_empty()).then_some(addresses))
        })
        .await
        .unwrap()
    }

    /// Deletes a pod without a grace period, as in a crash.
    pub async fn kill_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.delete(name, &kube::api::DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }
}

/// Returns the address of a pod, if it has one.
pub fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn server(name: &str, image: &str) -> Value {
    let tools: Vec<Value> = TOOLS
        .iter()
        .map(|tool| {
            let class = if *tool == "echo" { "Read" } else { "Write" };
            json!({"name": tool, "class": class, "arguments": [{"name": "word", "type": "String", "string": {"maxLength": 100}}]})
        })
        .collect();
    json!({
        "metadata": {"name": name},
        "spec": {
            "source": {"type": "Stdio", "stdio": {"image": image, "command": ["python3", "-u", "-c", SCRIPT]}},
            "workspace": {"mountPath": "/workspace", "storage": "1Gi"},
            "tools": tools,
            "limits": {"timeout": "8s", "maxResponseSize": "1Mi"},
            // The tests repeat calls that fail.
            "loops": {"mode": "Disabled"},
        },
    })
}

/// Returns the words of the calls of the tools `mark`, `slow` and `crash` that a server has begun, in their order. The
/// server writes each word to its workspace before it does anything else. Fails while the API server does not answer.
pub fn marks(server: &str) -> Result<Vec<String>> {
    let read = "print(open('/workspace/marks').read())";
    let pod = format!("mcp-{server}-0");
    let output = Command::new("kubectl")
        .args(["exec", "--namespace", RUNTIME, &pod, "--", "python3", "-c", read])
        .output()
        .context("failed to run kubectl")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = String::from_utf8(output.stdout)?;
    Ok(words.lines().filter(|word| !word.is_empty()).map(str::to_owned).collect())
}
