//! The tenant of the fault tests: one hostile server, two principals.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use mcp_fleet_crds::{MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Caller, until};

/// The tenant's name and its namespace.
pub const NAMESPACE: &str = "faults";
/// Its runtime namespace.
pub const RUNTIME: &str = "faults-mcp";

const SCRIPT: &str = include_str!("../fixtures/hostile.py");
const TOOLS: [&str; 9] = ["echo", "slow", "hang", "crash", "flood", "garbage", "noise", "twice", "wrong"];

/// The tenant, ready to be called.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct FaultTenant {
    /// The administrator's client.
    pub client: Client,
}

impl FaultTenant {
    /// Applies everything and waits until calls are answered. Does nothing to what is there already.
    pub async fn ready() -> Result<Self> {
        let client = crate::client().await?;
        let tenant = Self { client };
        tenant.apply().await?;
        for server in ["hostile", "quiet"] {
            let caller = tenant.patient_caller("first").await?;
            until(format!("server {server} answers"), Duration::from_secs(120), || async {
                match caller.say(server, "echo", "hello").await {
                    crate::Answer::Text(text) if text == "hello" => Ok(Some(())),
                    other => anyhow::bail!("{other:?}"),
                }
            })
            .await?;
        }
        Ok(tenant)
    }

    /// A caller with the credential of one of the principals `first` and `second`.
    pub async fn caller(&self, principal: &str) -> Result<Caller> {
        Caller::new(&self.client, NAMESPACE, RUNTIME, principal).await
    }

    /// The same, waiting for the credential to be issued.
    async fn patient_caller(&self, principal: &str) -> Result<Caller> {
        until(format!("credential of {principal}"), Duration::from_secs(60), || async {
            self.caller(principal).await.map(Some)
        })
        .await
    }

    async fn apply(&self) -> Result<()> {
        let image = self.python_image().await?;
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
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        until("the tenant's namespace", Duration::from_secs(60), || async { Ok(namespaces.get_opt(NAMESPACE).await?) })
            .await?;
        for name in ["hostile", "quiet"] {
            self.apply_one::<MCPServer>(Some(NAMESPACE), server(name, &image)).await?;
            self.apply_one::<MCPScope>(
                Some(NAMESPACE),
                json!({
                    "metadata": {"name": format!("{name}-all")},
                    "spec": {"serverRef": {"name": name}, "classes": ["Read", "Write", "Destructive"]},
                }),
            )
            .await?;
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

    /// The image of the demo's Python server, which has an interpreter.
    async fn python_image(&self) -> Result<String> {
        let servers: Api<MCPServer> = Api::all(self.client.clone());
        let clock =
            servers.list(&ListParams::default()).await?.items.into_iter().find(|server| server.name_any() == "clock");
        let clock = serde_json::to_value(clock.context("the demo's server `clock` is not there")?)?;
        let image = clock["spec"]["source"]["stdio"]["image"].as_str().context("the server `clock` has no image")?;
        Ok(image.to_owned())
    }

    async fn apply_one<K>(&self, namespace: Option<&str>, mut object: Value) -> Result<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        let name = object["metadata"]["name"].as_str().context("an object has a name")?.to_owned();
        // Typed as dynamic, because one function serves the cluster-scoped kind and the namespaced ones.
        let resource = kube::api::ApiResource::erase::<K>(&());
        let api: Api<kube::api::DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let applied = api.patch(&name, &PatchParams::apply("fault-tests").force(), &Patch::Apply(&object)).await?;
        Ok(applied.try_parse()?)
    }

    /// The pods of a namespace that carry a label.
    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        Ok(pods.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Deletes a pod as a crash would: at once, without a last word.
    pub async fn kill_pod(&self, namespace: &str, name: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.delete(name, &kube::api::DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }
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
        },
    })
}
