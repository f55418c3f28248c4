//! The objects of the fleet, as users write them.

use serde_json::{Value, json};

use super::Size;
use super::api::Write;

/// Path of our API group.
pub(crate) const GROUP: &str = "/apis/mcp-fleet.dev/v1alpha1";

/// Returns the name of a tenant and of its namespace.
pub(crate) fn tenant_name(number: usize) -> String {
    format!("bench-t{number:05}")
}

/// Returns the writes that create tenants with all their objects: namespaces first, then everything else.
pub(crate) fn fleet(size: Size, tenants: std::ops::Range<usize>) -> Vec<Write> {
    let names: Vec<String> = tenants.map(tenant_name).collect();
    let namespaces = names.iter().map(|name| {
        let metadata = json!({"name": name, "labels": {"mcp-fleet.dev/tenant": name}});
        Write::create("/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    });
    let objects = names.iter().flat_map(|name| of_tenant(size, name));
    namespaces.chain(objects).collect()
}

/// Returns how many objects of our kinds a number of tenants has.
pub(crate) fn count(size: Size, tenants: usize) -> usize {
    tenants * (1 + size.servers + size.scopes + size.principals)
}

fn of_tenant(size: Size, tenant: &str) -> Vec<Write> {
    let mut writes = vec![object(
        "",
        "MCPTenant",
        tenant,
        &json!({
            "namespace": {"name": tenant, "adoptionPolicy": "Labelled"},
            "images": {"allowed": ["registry.example.com/bench/*"], "referencePolicy": "Any"},
        }),
    )];
    for number in 0..size.servers {
        writes.push(object(tenant, "MCPServer", &format!("tool-{number}"), &server()));
    }
    for number in 0..size.scopes {
        let server = format!("tool-{}", number % size.servers);
        let spec = json!({"serverRef": {"name": server}, "classes": ["Read"]});
        writes.push(object(tenant, "MCPScope", &format!("read-{number}"), &spec));
    }
    for number in 0..size.principals {
        let scope = format!("read-{}", number % size.scopes);
        let spec = json!({"scopeRefs": [{"name": scope}], "limits": {"callsPerMinute": 60}});
        writes.push(object(tenant, "MCPPrincipal", &format!("agent-{number}"), &spec));
    }
    writes
}

fn server() -> Value {
    let path = json!({"name": "path", "type": "Path", "path": {"within": ["/workspace"]}});
    json!({
        "source": {"type": "Stdio", "stdio": {
            "image": "registry.example.com/bench/files:1", "command": ["files", "/workspace"],
        }},
        "tools": [
            {"name": "read", "class": "Read", "arguments": [path]},
            {"name": "list", "class": "Read", "arguments": [path]},
            {"name": "write", "class": "Write", "arguments": [path]},
            {"name": "delete", "class": "Destructive", "arguments": [path]},
        ],
    })
}

fn object(namespace: &str, kind: &str, name: &str, spec: &Value) -> Write {
    let metadata =
        if namespace.is_empty() { json!({"name": name}) } else { json!({"name": name, "namespace": namespace}) };
    let object = json!({"apiVersion": "mcp-fleet.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    Write::create(&collection(namespace, &format!("{}s", kind.to_lowercase())), &object)
}

/// Returns the path of the objects of one of our kinds in a namespace; of all of them if it is empty.
pub(crate) fn collection(namespace: &str, plural: &str) -> String {
    if namespace.is_empty() { format!("{GROUP}/{plural}") } else { format!("{GROUP}/namespaces/{namespace}/{plural}") }
}

/// Returns the write that changes the limit of a tenant's first principal.
pub(crate) fn set_limit(tenant: &str, principal: usize, calls_per_minute: u32) -> Write {
    let path = format!("{}/agent-{principal}", collection(tenant, "mcpprincipals"));
    Write::patch(path, &json!({"spec": {"limits": {"callsPerMinute": calls_per_minute}}}))
}
