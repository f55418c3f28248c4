//! Servers that serve MCP over HTTP, on a real cluster.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic fails the test")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::DeleteParams;
use mcp_fleet_crds::condition::{ConditionType, find};
use mcp_fleet_crds::{MCPPrincipal, MCPScope, MCPServer};
use mcp_fleet_e2e::{Answer, FaultTenant, NAMESPACE, RUNTIME, until};
use serde_json::{Value, json};

const SCRIPT: &str = include_str!("../../../mcp-pod/tests/fixtures/http_server.py");
const PORT: u16 = 8080;
/// By name: the kind of the fixture, and the transport and path of the source.
const SERVERS: [(&str, &str, &str, &str); 4] = [
    ("http-json", "json", "StreamableHTTP", "/mcp"),
    ("http-events", "events", "StreamableHTTP", "/mcp"),
    ("http-modern", "modern", "StreamableHTTP", "/mcp"),
    ("http-sse", "sse", "SSE", "/sse"),
];

fn server(name: &str, image: &str, port: u16, kind: &str, transport: &str, path: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "source": {"type": "HTTP", "http": {
                "image": image,
                "command": ["python3", "-u", "/etc/program/server.py", PORT.to_string(), kind],
                "files": [{"mountPath": "/etc/program", "configMapRef": {"name": "http-program"}}],
                "port": port,
                "path": path,
                "transport": transport,
                "startTimeout": "20s",
            }},
            "tools": [{"name": "echo", "class": "Read", "arguments": [{"name": "word", "type": "String", "string": {"maxLength": 10}}]}],
        },
    })
}

async fn status(tenant: &FaultTenant, name: &str) -> anyhow::Result<(String, String)> {
    let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    let status = servers.get(name).await?.status.unwrap_or_default();
    let ready = find(&status.conditions, ConditionType::Ready);
    Ok(ready.map(|ready| (ready.reason.clone(), ready.message.clone())).unwrap_or_default())
}

async fn wait_for(tenant: &FaultTenant, name: &str, reason: &str, text: &str) {
    until(format!("{name} to be {reason}"), Duration::from_secs(180), || async {
        let seen = status(tenant, name).await?;
        if seen.0 == reason && seen.1.contains(text) {
            return Ok(Some(()));
        }
        anyhow::bail!("{seen:?}")
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn servers_that_serve_http_are_called_and_nothing_else_reaches_them() {
    let tenant = FaultTenant::ready().await.unwrap();
    let image = tenant.python_image().await.unwrap();
    let program = json!({"metadata": {"name": "http-program"}, "data": {"server.py": SCRIPT}});
    tenant.apply_one::<ConfigMap>(Some(NAMESPACE), program).await.unwrap();
    for (name, kind, transport, path) in SERVERS {
        let object = server(name, &image, PORT, kind, transport, path);
        tenant.apply_one::<MCPServer>(Some(NAMESPACE), object).await.unwrap();
        let scope = json!({"metadata": {"name": name}, "spec": {"serverRef": {"name": name}, "classes": ["Read"]}});
        tenant.apply_one::<MCPScope>(Some(NAMESPACE), scope).await.unwrap();
    }
    let scopes: Vec<_> = SERVERS.iter().map(|(name, ..)| json!({"name": name})).collect();
    let principal = json!({"metadata": {"name": "http-caller"}, "spec": {"scopeRefs": scopes}});
    tenant.apply_one::<MCPPrincipal>(Some(NAMESPACE), principal).await.unwrap();
    let wrong = server("http-wrong", &image, PORT + 1, "json", "StreamableHTTP", "/mcp");
    tenant.apply_one::<MCPServer>(Some(NAMESPACE), wrong).await.unwrap();

    let caller = tenant.wait_for_caller("http-caller").await.unwrap();
    for (name, ..) in SERVERS {
        wait_for(&tenant, name, "Reconciled", "").await;
        let word = until(format!("a call of {name}"), Duration::from_secs(60), || async {
            match caller.call_with_word(name, "echo", "hello").await {
                Answer::Text(text) => Ok(Some(serde_json::from_str::<Value>(&text)?["arguments"]["word"].clone())),
                other => anyhow::bail!("{other:?}"),
            }
        })
        .await
        .unwrap();
        assert_eq!(word, "hello", "{name}");
    }

    // From the node, which no network policy keeps out.
    for pod in tenant.pods(RUNTIME, "mcp-fleet.dev/server=http-json").await.unwrap() {
        let address: IpAddr = pod.status.unwrap().pod_ip.unwrap().parse().unwrap();
        let connect = |port| TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(10));
        assert!(connect(8443).is_ok(), "the shim cannot be reached, so this shows nothing");
        assert_eq!(connect(PORT).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    // It may listen on the port of its source only.
    wait_for(&tenant, "http-wrong", "StartFailed", "Permission denied").await;

    // Other tests find the tenant as it was.
    let servers: Api<MCPServer> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    for name in SERVERS.iter().map(|(name, ..)| *name).chain(["http-wrong"]) {
        servers.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let scopes: Api<MCPScope> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    for (name, ..) in SERVERS {
        scopes.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let principals: Api<MCPPrincipal> = Api::namespaced(tenant.client.clone(), NAMESPACE);
    principals.delete("http-caller", &DeleteParams::default()).await.unwrap();
}
