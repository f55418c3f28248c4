//! Who reaches whom over the network.

use anyhow::{Context as _, Result, bail};

use super::setup::tool_pod;
use crate::demo::agent::connects;
use crate::demo::report::Step;
use crate::demo::stage::Stage;

/// Only its own tenant.
pub const GATEWAY: Step = Step {
    name: "gateway is fenced",
    does: "pods of both tenants open a connection to acme's gateway",
    run: |stage| {
        let host = "gateway.acme-mcp.svc";
        if !connects(stage, "acme", host, 443)? {
            bail!("acme's own agent should reach {host}");
        }
        if connects(stage, "beta", host, 443)? {
            bail!("beta's agent opened a connection to {host}");
        }
        Ok("acme's agent connects; beta's gets nothing".to_owned())
    },
};

/// Only the gateway.
pub const TOOL_POD: Step = Step {
    name: "tool pod is fenced",
    does: "agents of both tenants, and another tool pod, open a connection to the pod of acme's clock",
    run: |stage| {
        let pod = tool_pod(stage, "acme-mcp", "clock")?;
        let address = pod["status"]["podIP"].as_str().context("the pod has an address")?.to_owned();
        let mut tried = Vec::new();
        for from in ["acme", "beta"] {
            for port in [8443, 9090] {
                if connects(stage, from, &address, port)? {
                    bail!("{from}'s agent opened a connection to {address}:{port}");
                }
                tried.push(format!("{from} to {port}"));
            }
        }
        let neighbour = tool_pod(stage, "acme-mcp", "files")?;
        let name = neighbour["metadata"]["name"].as_str().context("the pod has a name")?.to_owned();
        // As an administrator: from inside the sandbox there is no network at all.
        let script = format!(
            "require('net').connect(8443, '{address}', () => process.exit(0)).on('error', () => process.exit(1)); \
             setTimeout(() => process.exit(1), 2000)"
        );
        if stage.kubectl(&["exec", "-n", "acme-mcp", &name, "-c", "tool", "--", "node", "-e", &script]).is_ok() {
            bail!("the pod of acme's files opened a connection to {address}:8443");
        }
        tried.push("the pod of files to 8443".to_owned());
        Ok(format!("refused: {}; the gateway reached it in the steps before ({})", tried.join(", "), logged(stage)?))
    },
};

/// That the gateway did: an audit line of an allowed call.
fn logged(stage: &Stage) -> Result<String> {
    let line = stage.audit("acme-mcp", |line| line["server"] == "clock" && line["decision"] == "allowed")?;
    Ok(format!("call {}", line["call"].as_str().unwrap_or("?")))
}
