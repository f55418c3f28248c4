//! Network isolation: which pods can connect to which.

use anyhow::{Context as _, Result, bail};

use super::setup::tool_pod;
use crate::demo::agent::connects;
use crate::demo::report::Step;
use crate::demo::state::Demo;

/// Connects to a gateway from both tenants.
pub const GATEWAY: Step = Step {
    name: "gateway is fenced",
    action: "The agents of both tenants try to connect to acme's gateway.",
    purpose: "Only pods of a tenant can reach its gateway.",
    run: |demo| {
        let host = "gateway.acme-mcp.svc";
        if !connects(demo, "acme", host, 443)? {
            bail!("acme's agent should be able to connect to {host}");
        }
        if connects(demo, "beta", host, 443)? {
            bail!("beta's agent should not be able to connect to {host}");
        }
        Ok("acme's agent can connect, beta's agent cannot".to_owned())
    },
};

/// Connects to a tool pod from every pod but its gateway.
pub const TOOL_POD: Step = Step {
    name: "tool pod is fenced",
    action: "The agents of both tenants, and another tool pod, try to connect to the pod of acme's clock.",
    purpose: "Only the gateway can reach a tool server, so no call bypasses the policy.",
    run: |demo| {
        let pod = tool_pod(demo, "acme-mcp", "clock")?;
        let address = pod["status"]["podIP"].as_str().context("the pod has no address")?.to_owned();
        let mut blocked = Vec::new();
        for from in ["acme", "beta"] {
            for port in [8443, 9090] {
                if connects(demo, from, &address, port)? {
                    bail!("{from}'s agent should not be able to connect to {address}:{port}");
                }
                blocked.push(format!("{from}'s agent to port {port}"));
            }
        }
        let neighbour = tool_pod(demo, "acme-mcp", "files")?;
        let name = neighbour["metadata"]["name"].as_str().context("the pod has no name")?.to_owned();
        // Run as an administrator, because the sandbox of a tool server has no network at all.
        let script = format!(
            "require('net').connect(8443, '{address}', () => process.exit(0)).on('error', () => process.exit(1)); \
             setTimeout(() => process.exit(1), 2000)"
        );
        if demo.kubectl(&["exec", "-n", "acme-mcp", &name, "-c", "tool", "--", "node", "-e", &script]).is_ok() {
            bail!("the pod of acme's files should not be able to connect to {address}:8443");
        }
        blocked.push("the pod of files to port 8443".to_owned());
        let call = allowed_call(demo)?;
        Ok(format!("blocked: {}; the gateway reached the pod in an earlier step (call {call})", blocked.join(", ")))
    },
};

/// Returns the ID of an allowed call to the clock, which proves that the gateway can reach the pod.
fn allowed_call(demo: &Demo) -> Result<String> {
    let line = demo.audit("acme-mcp", |line| line["server"] == "clock" && line["decision"] == "allowed")?;
    Ok(line["call"].as_str().unwrap_or("?").to_owned())
}
