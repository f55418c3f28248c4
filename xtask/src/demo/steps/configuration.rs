//! What a server is configured with.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;

use crate::demo::report::Step;
use crate::demo::state::{Demo, until};

/// The value in the Secret. It is nowhere else but in the pod.
const VALUE: &str = "the-token-of-the-clock";

/// Gives a server a Secret.
pub const SECRET: Step = Step {
    name: "secret for a server",
    action: "Give acme's clock a variable from a Secret, which does not name the server at first.",
    purpose: "Whoever writes an MCPServer gets no Secret with it that its owner has not given to that server.",
    run: |demo| {
        let exists = demo.kubectl(&["get", "secret", "-n", "acme", "clock-api", "-o", "name", "--ignore-not-found"])?;
        if !exists.is_empty() {
            demo.kubectl(&["delete", "secret", "-n", "acme", "clock-api"])?;
        }
        demo.kubectl(&[
            "create",
            "secret",
            "generic",
            "-n",
            "acme",
            "clock-api",
            &format!("--from-literal=token={VALUE}"),
        ])?;
        let from = json!({"secretKeyRef": {"name": "clock-api", "key": "token"}});
        let env = json!([{"name": "CLOCK_TOKEN", "valueFrom": from}]);
        let patch = json!({"spec": {"source": {"stdio": {"env": env}}}}).to_string();
        demo.kubectl(&["patch", "mcpserver", "-n", "acme", "clock", "--type=merge", "-p", &patch])?;
        let refused = wait_for(demo, "ConfigRefused")?;
        demo.kubectl(&["label", "secret", "-n", "acme", "clock-api", "mcp-fleet.dev/server.clock="])?;
        wait_for(demo, "Reconciled")?;
        let print = ["python3", "-c", "import os; print(os.environ['CLOCK_TOKEN'])"];
        let exec = ["exec", "-n", "acme-mcp", "deploy/mcp-clock", "-c", "tool", "--"];
        let seen = demo.kubectl(&[&exec[..], &print[..]].concat())?;
        if seen.trim() != VALUE {
            bail!("the server should have the value of the Secret, and has {seen:?}");
        }
        for shown in [&["-n", "acme", "mcpservers"], &["-n", "acme-mcp", "pods"], &["-n", "acme-mcp", "deployments"]] {
            if demo.kubectl(&[&["get", "-o", "yaml"], &shown[..]].concat())?.contains(VALUE) {
                bail!("the value should not be shown by kubectl get {}", shown.join(" "));
            }
        }
        Ok(format!("first: {refused}; with the label, the server has it"))
    },
};

/// Waits until acme's clock is as written, or not, for a reason. Returns the message.
fn wait_for(demo: &Demo, reason: &str) -> Result<String> {
    until(Duration::from_secs(120), &format!("acme's clock to be {reason}"), || {
        let clock = demo.kubectl_json(&["get", "mcpserver", "-n", "acme", "clock"])?;
        let conditions = clock["status"]["conditions"].as_array().cloned().unwrap_or_default();
        match conditions.into_iter().find(|condition| condition["type"] == "Ready") {
            Some(ready)
                if ready["reason"] == reason && ready["observedGeneration"] == clock["metadata"]["generation"] =>
            {
                Ok(ready["message"].as_str().unwrap_or_default().to_owned())
            }
            Some(ready) => bail!("{}: {}", ready["reason"], ready["message"]),
            None => bail!("it has no condition"),
        }
    })
}
