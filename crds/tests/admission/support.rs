//! A client for the API server of the tests, with the definitions installed, and the types of the test tables.

use std::borrow::Borrow;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config, Resource, ResourceExt as _};
use mcp_fleet_crds::admission;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cases::{compare, merged};

/// Namespace of the operator that the admission policies name.
pub(crate) const OPERATOR_NAMESPACE: &str = "mcp-fleet-system";

/// Client for the API server of the tests.
pub(crate) struct Cluster(Client);

impl Cluster {
    /// Connects to the API server as its administrator, and installs the definitions and the admission policies.
    pub(crate) async fn connect() -> Self {
        Box::pin(Self::connect_and_install()).await
    }

    async fn connect_and_install() -> Self {
        let cluster = Self(Client::try_from(config().await).unwrap());
        for crd in mcp_fleet_crds::all() {
            cluster.apply(&crd).await;
        }
        let with_crds = admission::with_crds().into_iter().map(|(_, admission)| admission);
        for admission in with_crds.chain(admission::with_operator(OPERATOR_NAMESPACE)) {
            cluster.apply(&admission.policy).await;
            cluster.apply(&admission.binding).await;
        }
        cluster.established().await;
        cluster
    }

    /// Returns the client of a user with these rights in all namespaces: rules of a ClusterRole.
    pub(crate) async fn user(&self, name: &str, rules: &Value) -> Self {
        let role = json!({"metadata": {"name": name}, "rules": rules});
        self.apply::<ClusterRole>(&serde_json::from_value(role).unwrap()).await;
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
        });
        self.apply::<ClusterRoleBinding>(&serde_json::from_value(binding).unwrap()).await;
        let mut config = config().await;
        config.auth_info.impersonate = Some(name.to_owned());
        Self(Client::try_from(config).unwrap())
    }

    async fn apply<K>(&self, object: &K)
    where
        K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.0.clone());
        let params = PatchParams::apply("admission-test").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(object)).await.expect("failed to install a definition");
    }

    /// Waits until the API server serves all definitions and enforces the admission policy.
    async fn established(&self) {
        let served = |crd: &CustomResourceDefinition| {
            let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
        };
        let crds: Api<CustomResourceDefinition> = Api::all(self.0.clone());
        let nested = json!({"type": "Array", "name": "a", "array": {"maxItems": 1, "items": {"type": "Enum"}}});
        for _ in 0..600 {
            let listed = crds.list(&kube::api::ListParams::default()).await.unwrap();
            let ours: Vec<_> = listed.iter().filter(|crd| crd.spec.group == "mcp-fleet.dev").collect();
            let ready = ours.len() == mcp_fleet_crds::all().len() && ours.into_iter().all(served);
            if ready && self.namespace("acme", of_tenant("acme")).await && self.denies_nested(&nested).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("60 s after they were applied, the definitions are not served or the admission policy denies nothing");
    }

    /// Whether the policies deny an object for its nested argument, and not for its namespace.
    async fn denies_nested(&self, argument: &Value) -> bool {
        let answer = self.dry_run(&with_argument(argument)[0]).await;
        let valid = json!({"type": "Boolean", "name": "a"});
        answer.is_err_and(|message| message.contains("at depth 2"))
            && self.dry_run(&with_argument(&valid)[0]).await.is_ok()
    }

    /// Applies a namespace with these labels. Returns whether the API server took it.
    pub(crate) async fn namespace(&self, name: &str, labels: Value) -> bool {
        let api: Api<Namespace> = Api::all(self.0.clone());
        let metadata = json!({"name": name, "labels": labels});
        let namespace: Namespace = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        let params = PatchParams::apply("admission-test").force();
        api.patch(name, &params, &Patch::Apply(&namespace)).await.is_ok()
    }

    /// Returns the API of an object's kind in the object's namespace.
    pub(crate) fn api(&self, object: &Value) -> Api<DynamicObject> {
        let (kind, version) = (object["kind"].as_str().unwrap(), object["apiVersion"].as_str().unwrap());
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.0.clone(), namespace, &resource),
            None => Api::all_with(self.0.clone(), &resource),
        }
    }

    /// Creates an object as a dry run.
    pub(crate) async fn dry_run(&self, object: impl Borrow<Value>) -> Result<Value, String> {
        let object = object.borrow();
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let answer = self.api(object).create(&params, &parsed).await;
        text(answer.map(|object| serde_json::to_value(object).unwrap()))
    }

    /// Applies an object on the server's side, as this field manager.
    pub(crate) async fn apply_as(&self, manager: &str, object: &Value) -> Result<Value, String> {
        let params = PatchParams::apply(manager).force();
        let answer = self.api(object).patch(name(object), &params, &Patch::Apply(object)).await;
        text(answer.map(|object| serde_json::to_value(object).unwrap()))
    }

    /// Creates an object, or finds it there already.
    pub(crate) async fn create(&self, object: &Value) -> Result<Value, String> {
        let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        match self.api(object).create(&PostParams::default(), &parsed).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Value::Null),
            answer => text(answer.map(|object| serde_json::to_value(object).unwrap())),
        }
    }

    /// Applies a JSON merge patch to an object.
    pub(crate) async fn patch(&self, object: impl Borrow<Value>, patch: impl Borrow<Value>) -> Result<Value, String> {
        self.patch_with(&PatchParams::default(), object.borrow(), patch.borrow()).await
    }

    /// Applies a JSON merge patch to an object as a dry run.
    pub(crate) async fn dry_patch(
        &self,
        object: impl Borrow<Value>,
        patch: impl Borrow<Value>,
    ) -> Result<Value, String> {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        self.patch_with(&params, object.borrow(), patch.borrow()).await
    }

    async fn patch_with(&self, params: &PatchParams, object: &Value, patch: &Value) -> Result<Value, String> {
        let answer = self.api(object).patch(name(object), params, &Patch::Merge(patch)).await;
        text(answer.map(|object| serde_json::to_value(object).unwrap()))
    }

    /// Deletes an object as a dry run.
    pub(crate) async fn dry_delete(&self, object: impl Borrow<Value>) -> Result<Value, String> {
        let object = object.borrow();
        let params = DeleteParams { dry_run: true, ..DeleteParams::default() };
        text(self.api(object).delete(name(object), &params).await.map(|_| Value::Null))
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, object: &Value) -> Result<Value, String> {
        text(self.api(object).delete(name(object), &DeleteParams::default()).await.map(|_| Value::Null))
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn text(answer: kube::Result<Value>) -> Result<Value, String> {
    answer.map_err(|error| error.to_string())
}

async fn config() -> Config {
    let path = std::env::var("MCP_FLEET_TEST_KUBECONFIG")
        .expect("these tests need an API server: run them with `cargo xtask test api`");
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// Returns the labels of a tenant's own namespace.
pub(crate) fn of_tenant(name: &str) -> Value {
    json!({"mcp-fleet.dev/tenant": name})
}

/// Repeats a request until the API server answers it in the expected way: it learns of new policies, roles and labels a
/// moment after they are written. Panics with the last answer if that takes too long.
pub(crate) async fn until<Fut>(refused: Option<&str>, request: impl Fn() -> Fut)
where
    Fut: Future<Output = Result<Value, String>>,
{
    let mut last = None;
    for _ in 0..600 {
        last = compare("the request", request().await, refused);
        if last.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("after 60 s: {}", last.unwrap_or_default());
}

/// Returns arguments that hold a value at depth 1 (as the argument), 2 (as an item) and 3 (as a property of an item).
pub(crate) fn at_depths(value: &Value) -> Vec<(usize, Value)> {
    let named = |value: &Value| merged(value, &json!({"name": "a"}));
    let list = |items: Value| json!({"name": "list", "type": "Array", "array": {"maxItems": 3, "items": items}});
    let object = |property: Value| json!({"type": "Object", "object": {"properties": [property]}});
    let mut depths = vec![(1, named(value)), (2, list(value.clone()))];
    // Arrays and objects are possible down to depth 2; below, the schema itself refuses them.
    if value.get("array").is_none() && value.get("object").is_none() && value["type"] != "Array" {
        depths.push((3, list(object(named(value)))));
    }
    depths
}

/// Returns a server and a scope, each with a tool that has the given argument.
pub(crate) fn with_argument(argument: &Value) -> [Value; 2] {
    let object = |kind: &str, spec: Value| {
        json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "files", "namespace": "acme"}, "spec": spec})
    };
    let source = json!({"type": "Stdio", "stdio": {"image": "x", "command": ["x"]}});
    [
        object(
            "MCPServer",
            json!({"source": source, "tools": [{"name": "t", "class": "Read", "arguments": [argument]}]}),
        ),
        object("MCPScope", json!({"serverRef": {"name": "files"}, "tools": [{"name": "t", "arguments": [argument]}]})),
    ]
}
