//! A server that is configured with Secrets, `ConfigMap`s and directories, on a real cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use mcp_fleet_crds::condition::{ConditionType, find};
use mcp_fleet_crds::{MCPPrincipal, MCPScope, MCPServer};
use mcp_fleet_e2e::{Answer, Caller, FaultTenant, NAMESPACE, OPERATOR, OPERATORS, RUNTIME, address, until};
use serde_json::{Value, json};

const SCRIPT: &str = include_str!("../fixtures/configured.py");
const PODS: &str = "mcp-fleet.dev/server=configured";
/// How long a changed Secret may take: it is read once a minute, and a pod is replaced.
const CHANGE: Duration = Duration::from_secs(150);

/// Returns the server. Its program is one of its files.
fn server(image: &str) -> Value {
    let secret = |key: &str| json!({"secretKeyRef": {"name": "api", "key": key}});
    json!({
        "metadata": {"name": "configured"},
        "spec": {
            "source": {"type": "Stdio", "stdio": {
                "image": image,
                "command": ["python3", "-u", "/etc/configured/server.py"],
                "args": ["--price", "$(HOME) $5"],
                "env": [
                    {"name": "TOKEN", "valueFrom": secret("token")},
                    {"name": "PRICE", "value": "$(HOME) $5"},
                    {"name": "MORE", "valueFrom": {"configMapKeyRef": {"name": "extra", "key": "more", "optional": true}}},
                ],
                "envFrom": [
                    {"prefix": "ALL_", "secretRef": {"name": "api"}}, {"configMapRef": {"name": "variables"}},
                    {"configMapRef": {"name": "extra", "optional": true}},
                ],
                "files": [
                    {"mountPath": "/etc/configured", "configMapRef": {"name": "files"}},
                    {"mountPath": "/etc/keys", "secretRef": {"name": "api"}, "items": [{"key": "key", "path": "key.pem"}]},
                ],
                "scratch": [
                    {"mountPath": "/var/cache/configured", "sizeLimit": "10Mi"},
                    {"mountPath": "/home/configured/.cache", "sizeLimit": "10Mi", "execute": "Allow"},
                    {"mountPath": "/var/cache/memory", "sizeLimit": "10Mi", "medium": "Memory"},
                ],
                "workingDir": "/var/cache/configured",
                "startTimeout": "90s",
                "stopGrace": "1s",
            }},
            "tools": [{"name": "look", "class": "Read", "arguments": [{"name": "word", "type": "String", "string": {"maxLength": 1}}]}],
            "loops": {"mode": "Disabled"},
        },
    })
}

fn secret(token: &str, labels: &Value) -> Value {
    json!({"metadata": {"name": "api", "labels": labels}, "stringData": {"token": token, "key": "the-key"}})
}

async fn message(tenant: &FaultTenant) -> anyhow::Result<(String, String)> {
    let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    let status = servers.get("configured").await?.status.unwrap_or_default();
    let ready = find(&status.conditions, ConditionType::Ready);
    Ok(ready.map(|ready| (ready.reason.clone(), ready.message.clone())).unwrap_or_default())
}

async fn wait_for(tenant: &FaultTenant, reason: &str, text: &str) {
    until(format!("the server to be {reason}"), Duration::from_secs(120), || async {
        let seen = message(tenant).await?;
        if seen.0 == reason && seen.1.contains(text) {
            return Ok(Some(()));
        }
        anyhow::bail!("{seen:?}")
    })
    .await
    .unwrap();
}

async fn look(caller: &Caller) -> anyhow::Result<Value> {
    call(caller, "look").await
}

async fn call(caller: &Caller, tool: &str) -> anyhow::Result<Value> {
    match caller.call_with_word("configured", tool, "").await {
        Answer::Text(text) => Ok(serde_json::from_str(&text)?),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn pods(tenant: &FaultTenant) -> Vec<Pod> {
    tenant.pods(RUNTIME, PODS).await.unwrap()
}

#[tokio::test]
async fn a_server_gets_what_it_is_configured_with_and_nobody_else_does() {
    let tenant = FaultTenant::ready().await.unwrap();
    let image = tenant.python_image().await.unwrap();
    let scope =
        json!({"metadata": {"name": "configured"}, "spec": {"serverRef": {"name": "configured"}, "classes": ["Read"]}});
    tenant.apply_one::<MCPServer>(Some(NAMESPACE), server(&image)).await.unwrap();
    tenant.apply_one::<MCPScope>(Some(NAMESPACE), scope).await.unwrap();
    let principal = json!({"metadata": {"name": "configurer"}, "spec": {"scopeRefs": [{"name": "configured"}]}});
    tenant.apply_one::<MCPPrincipal>(Some(NAMESPACE), principal).await.unwrap();

    // Each thing that is missing is named, one after the other.
    wait_for(&tenant, "ConfigNotFound", "the Secret api does not exist").await;
    let other = json!({"mcp-fleet.dev/server.other": ""});
    tenant.apply_one::<Secret>(Some(NAMESPACE), secret("s3cret-1", &other)).await.unwrap();
    wait_for(&tenant, "ConfigRefused", "mcp-fleet.dev/server.configured=\"\"").await;
    assert!(pods(&tenant).await.is_empty());
    let files = json!({"metadata": {"name": "files"}, "data": {"server.py": SCRIPT, "setting": "first"}});
    tenant.apply_one::<ConfigMap>(Some(NAMESPACE), files).await.unwrap();
    let variables = json!({"metadata": {"name": "variables"}, "data": {"url": "https://api.example.com"}});
    tenant.apply_one::<ConfigMap>(Some(NAMESPACE), variables).await.unwrap();
    let label = json!({"mcp-fleet.dev/server.configured": ""});
    tenant.apply_one::<Secret>(Some(NAMESPACE), secret("s3cret-1", &label)).await.unwrap();
    wait_for(&tenant, "Reconciled", "").await;

    let caller = tenant.wait_for_caller("configurer").await.unwrap();
    let seen = until("a call", Duration::from_secs(60), || async { look(&caller).await.map(Some) }).await.unwrap();
    let expected = json!({
        "arguments": ["--price", "$(HOME) $5"],
        "directory": "/var/cache/configured",
        "variables": {
            "TOKEN": "s3cret-1", "ALL_token": "s3cret-1", "url": "https://api.example.com", "PRICE": "$(HOME) $5", "HOME": "/tmp",
            "MORE": null,
        },
        "files": ["server.py", "setting"],
        "setting": "first",
        "key": "the-key",
        "write file": "Read-only file system",
        "unused key": "No such file or directory",
        "shim": "Permission denied",
        "scratch": "Permission denied",
        "executable scratch": "ran",
        "memory": ["tmpfs", "Permission denied", "No space left on device"],
        "tmp": "Permission denied",
    });
    assert_eq!(seen, expected);

    // A new value makes new pods, with what they are given together.
    let before = pods(&tenant).await[0].name_any();
    tenant.apply_one::<Secret>(Some(NAMESPACE), secret("s3cret-2", &label)).await.unwrap();
    until("the new value", CHANGE, || async {
        let seen = look(&caller).await?;
        Ok((seen["variables"]["TOKEN"] == "s3cret-2" && seen["variables"]["ALL_token"] == "s3cret-2").then_some(()))
    })
    .await
    .unwrap();
    assert!(pods(&tenant).await.iter().any(|pod| pod.name_any() != before));
    wait_for(&tenant, "Reconciled", "").await;

    // What is optional comes and goes.
    let extra = json!({"metadata": {"name": "extra"}, "data": {"more": "some"}});
    tenant.apply_one::<ConfigMap>(Some(NAMESPACE), extra).await.unwrap();
    let more = async |expected: Value| {
        until(format!("the variable to be {expected}"), CHANGE, || async {
            Ok((look(&caller).await?["variables"]["MORE"] == expected).then_some(()))
        })
        .await
        .unwrap();
    };
    more(json!("some")).await;
    let maps: Api<ConfigMap> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    maps.delete("extra", &DeleteParams::default()).await.unwrap();
    more(Value::Null).await;
    wait_for(&tenant, "Reconciled", "").await;

    // Without what is not, what runs goes on, and a pod that is lost is replaced.
    let secrets: Api<Secret> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    secrets.delete("api", &DeleteParams::default()).await.unwrap();
    wait_for(&tenant, "ConfigNotFound", "what was accepted before goes on running").await;
    let all: Api<Pod> = Api::namespaced(tenant.client.clone(), RUNTIME);
    all.delete_collection(&DeleteParams::default(), &ListParams::default().labels(PODS)).await.unwrap();
    until("the server to answer again", CHANGE, || async {
        Ok((look(&caller).await?["variables"]["TOKEN"] == "s3cret-2").then_some(()))
    })
    .await
    .unwrap();

    nothing_shows(&tenant, "s3cret").await;

    stops_while_nobody_calls(&tenant, &caller).await;

    // What it does not need any more is gone.
    let none = json!({"spec": {"source": {"stdio": {"env": null, "envFrom": [], "files": [], "command": ["python3", "-c", SCRIPT]}}}});
    let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    servers.patch("configured", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    let copies: Api<Secret> = Api::namespaced(tenant.client.clone(), RUNTIME);
    until("the copies to be deleted", Duration::from_secs(120), || async {
        let left = copies.list_metadata(&ListParams::default().labels(PODS)).await?;
        let left: Vec<_> = left.iter().map(kube::ResourceExt::name_any).filter(|name| name.contains('.')).collect();
        if left.is_empty() {
            return Ok(Some(()));
        }
        anyhow::bail!("{left:?}")
    })
    .await
    .unwrap();
    servers.delete("configured", &DeleteParams::default()).await.unwrap();
}

/// Lets the server be stopped while nobody calls it, and calls it by another name.
async fn stops_while_nobody_calls(tenant: &FaultTenant, caller: &Caller) {
    let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    let mut tools = server("")["spec"]["tools"].clone();
    tools[0]["as"] = json!("look_around");
    // Nothing is accepted of a server whose Secret is missing.
    let label = json!({"mcp-fleet.dev/server.configured": ""});
    tenant.apply_one::<Secret>(Some(NAMESPACE), secret("s3cret-2", &label)).await.unwrap();
    let change = json!({"spec": {"idle": {"stopAfter": "1m"}, "tools": tools}});
    servers.patch("configured", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let metric = async |name: &str| -> anyhow::Result<Option<String>> {
        let pods = pods(tenant).await;
        let [pod] = &*pods else { return Ok(None) };
        let Some(address) = address(pod) else { return Ok(None) };
        let text = reqwest::get(format!("http://{address}:9090/metrics")).await?.text().await?;
        Ok(text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()))
    };
    let stopped = || async {
        let idle = metric("mcp_pod_shim_server_idle ").await?;
        Ok((idle.as_deref() == Some("1")).then_some(()))
    };
    until("the server to be stopped", Duration::from_secs(240), stopped).await.unwrap();
    wait_for(tenant, "Reconciled", "").await;
    assert_eq!(call(caller, "look_around").await.unwrap()["setting"], "first");
    assert_eq!(metric("mcp_pod_shim_server_wakes_total ").await.unwrap().as_deref(), Some("1"));
    let refused = caller.call_with_word("configured", "look", "").await;
    assert!(!matches!(refused, Answer::Text(_)), "{refused:?}");
}

/// Fails if a value is anywhere but in Secrets: in objects of the tenant, in Events, in pods, or in logs.
async fn nothing_shows(tenant: &FaultTenant, value: &str) {
    let mut texts = Vec::new();
    for namespace in [NAMESPACE, RUNTIME] {
        let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), namespace);
        texts.extend(servers.list(&ListParams::default()).await.unwrap().iter().map(|it| json!(it).to_string()));
        let events: Api<Event> = Api::namespaced(tenant.client.clone(), namespace);
        texts.extend(events.list(&ListParams::default()).await.unwrap().iter().map(|it| json!(it).to_string()));
    }
    let mut logs = 0;
    for (namespace, selector) in [(OPERATOR, OPERATORS), (RUNTIME, "mcp-fleet.dev/tenant=faults")] {
        let api: Api<Pod> = Api::namespaced(tenant.client.clone(), namespace);
        for pod in tenant.pods(namespace, selector).await.unwrap() {
            texts.push(json!(pod).to_string());
            // A pod that is being replaced may have none.
            if let Ok(log) = api.logs(&pod.name_any(), &LogParams::default()).await {
                // The results of calls are no part of it.
                logs += 1;
                texts.push(log);
            }
        }
    }
    assert!(logs >= 3, "{logs} logs were read");
    let found: Vec<_> = texts.iter().filter(|text| text.contains(value)).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Returns a server without tools whose program is this.
fn broken(name: &str, image: &str, stdio: &Value, replicas: u32) -> Value {
    let mut source = json!({"image": image, "command": ["python3", "-c", "import time; time.sleep(1000)"]});
    source.as_object_mut().unwrap().extend(stdio.as_object().unwrap().clone());
    json!({
        "metadata": {"name": name},
        "spec": {"source": {"type": "Stdio", "stdio": source}, "replicas": replicas, "tools": [{"name": "look", "class": "Read"}]},
    })
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_why() {
    let tenant = FaultTenant::ready().await.unwrap();
    let image = tenant.python_image().await.unwrap();
    let failing = "import os, sys; print('no such account:', os.environ['WORD'], file=sys.stderr); sys.exit(3)";
    let word = json!({"metadata": {"name": "word"}, "data": {"word": "open-sesame"}});
    tenant.apply_one::<ConfigMap>(Some(NAMESPACE), word).await.unwrap();
    let variable = json!([{"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "word", "key": "word"}}}]);
    let large = json!({"limits": {"cpu": "1000", "memory": "64Mi"}});
    let cases = [
        ("no-image", "localhost/no-such-image:1", json!({}), "ImageNotPulled", "its image cannot be pulled: "),
        ("no-node", &image, json!({"resources": large}), "Unschedulable", "Insufficient cpu"),
        (
            "no-program",
            &image,
            json!({"command": ["/no/such/program"]}),
            "StartFailed",
            "failed to execute /no/such/program",
        ),
        (
            "ends",
            &image,
            json!({"command": ["python3", "-c", failing], "env": variable}),
            "StartFailed",
            "status 3; it wrote last: no such account: open-sesame",
        ),
        ("silent", &image, json!({"startTimeout": "10s"}), "StartFailed", "the server did not start within 10 s"),
    ];
    for (name, image, stdio, ..) in &cases {
        tenant.apply_one::<MCPServer>(Some(NAMESPACE), broken(name, image, stdio, 1)).await.unwrap();
    }
    let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    let seen = async |name: &str| {
        let status = servers.get(name).await?.status.unwrap_or_default();
        let ready = find(&status.conditions, ConditionType::Ready);
        anyhow::Ok(ready.map(|ready| (ready.reason.clone(), ready.message.clone())).unwrap_or_default())
    };
    for (name, _, _, reason, text) in &cases {
        until(format!("{name} to say {reason}"), Duration::from_secs(90), || async {
            let (seen_reason, message) = seen(name).await?;
            if seen_reason == *reason && message.contains(text) {
                return Ok(Some(()));
            }
            anyhow::bail!("{seen_reason}: {message}")
        })
        .await
        .unwrap();
    }
    // A reason is one Event, however often it is tried again.
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let of_server = |event: &k8s_openapi::api::events::v1::Event| {
        event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some("ends")
    };
    let all = events.list(&ListParams::default()).await.unwrap().into_iter().filter(of_server);
    let reasons: Vec<_> = all.filter_map(|event| event.reason).collect();
    assert_eq!(reasons.iter().filter(|reason| *reason == "StartFailed").count(), 1, "{reasons:?}");

    // An update whose image cannot be pulled is reported, and can be taken back.
    let caller = tenant.caller("first").await.unwrap();
    let good = servers.get("quiet").await.unwrap();
    let stuck = json!({"spec": {"source": {"stdio": {"image": "localhost/no-such-image:1"}}}});
    servers.patch("quiet", &PatchParams::default(), &Patch::Merge(stuck)).await.unwrap();
    let is_said = || async {
        let (reason, message) = seen("quiet").await?;
        if reason == "ImageNotPulled" {
            return Ok(Some(()));
        }
        anyhow::bail!("{reason}: {message}")
    };
    until("the update to fail", Duration::from_secs(90), is_said).await.unwrap();
    let image = json!({"spec": {"source": {"stdio": {"image": good.spec.source.stdio.unwrap().image}}}});
    servers.patch("quiet", &PatchParams::default(), &Patch::Merge(image)).await.unwrap();
    until("the server to answer", Duration::from_secs(120), || async {
        match caller.call_with_word("quiet", "echo", "back").await {
            Answer::Text(text) if text == "back" => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
    for (name, ..) in &cases {
        servers.delete(name, &DeleteParams::default()).await.unwrap();
    }
}
