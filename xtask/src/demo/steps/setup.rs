//! The stage: a cluster, images, charts, the quickstart, Prometheus, and files to read.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::demo::report::Step;
use crate::demo::stage::{OPERATOR, Stage, until};
use crate::image;
use crate::tools::{command, go, progress, repository};

/// Up, from nothing.
pub const CLUSTER: Step = Step {
    name: "cluster",
    does: "brings up a Kubernetes cluster of its own, from nothing",
    run: |stage| {
        let options = Options { name: stage.name.clone(), apiserver_only: false };
        Cluster::down(&options.name)?;
        stage.set_cluster(Cluster::up(&options)?);
        let version = stage.kubectl_json(&["version"])?["serverVersion"]["gitVersion"].clone();
        let nodes = stage.kubectl(&["get", "nodes", "--no-headers"])?;
        Ok(format!("Kubernetes {}: {}", version.as_str().unwrap_or("?"), nodes.trim()))
    },
};

/// Built and loaded.
pub const IMAGES: Step = Step {
    name: "images",
    does: "builds the images of operator, mcp-pod, two MCP servers, the Inspector and Prometheus, and loads them",
    run: |stage| {
        let mut loaded = Vec::new();
        for image in image::DEMO {
            let archive = image::build(image)?;
            stage.cluster()?.load_image(&archive)?;
            let size = archive.metadata()?.len() / 1_000_000;
            progress::note(format!("loaded {} ({size} MB)", image.reference));
            loaded.push(format!("{} {size} MB", image.name));
        }
        Ok(loaded.join(", "))
    },
};

/// Installed with helm, and ready.
pub const CHARTS: Step = Step {
    name: "charts",
    does: "installs charts/mcp-fleet-crds and charts/mcp-fleet with helm, and waits until both operators are ready",
    run: |stage| {
        helm(stage, "mcp-fleet-crds", &[])?;
        let endpoints = stage.kubectl_json(&["get", "endpoints", "kubernetes", "-n", "default"])?;
        let address = endpoints["subsets"][0]["addresses"][0]["ip"].as_str().unwrap_or_default();
        let port = endpoints["subsets"][0]["ports"][0]["port"].as_u64().unwrap_or_default();
        let endpoint = format!("apiServer.endpoints=[{{\"cidr\":\"{address}/32\",\"port\":{port}}}]");
        helm(stage, "mcp-fleet", &["--set-json", &endpoint, "--set", "monitoring.namespace=monitoring"])?;
        let rollout = ["rollout", "status", "deployment/mcp-fleet-operator", "-n", OPERATOR, "--timeout=90s"];
        Ok(last_line(&stage.kubectl(&rollout)?))
    },
};

/// Prometheus.
pub const MONITORING: Step = Step {
    name: "monitoring",
    does: "starts a real Prometheus that scrapes operators, gateways and tool pods",
    run: |stage| {
        stage.cluster()?.kubectl_with_input(&["apply", "-f", "-"], include_bytes!("../monitoring.yaml"))?;
        let ready = ["wait", "--for=condition=Ready", "pod/prometheus", "-n", "monitoring", "--timeout=90s"];
        Ok(last_line(&stage.kubectl(&ready)?))
    },
};

/// Two tenants, with everything of theirs ready.
pub const QUICKSTART: Step = Step {
    name: "quickstart",
    does: "applies examples/quickstart, and waits until everything in it says that it is ready",
    run: |stage| {
        let ready = |kind: &str| {
            progress::note(format!("waiting for {kind}"));
            until(Duration::from_secs(120), kind, || all_ready(stage, kind))
        };
        apply(stage, "00-tenants.yaml")?;
        ready("mcptenants")?;
        for file in ["10-acme.yaml", "20-beta.yaml", "30-agents.yaml"] {
            apply(stage, file)?;
        }
        for kind in ["mcpservers", "mcpscopes", "mcpprincipals", "mcpbudgets", "mcptenants"] {
            ready(kind)?;
        }
        for namespace in ["acme", "beta"] {
            stage.kubectl(&["wait", "--for=condition=Ready", "pod/agent", "-n", namespace, "--timeout=120s"])?;
        }
        stage.kubectl(&["get", "mcp", "-A", "--no-headers"])
    },
};

/// Files to read, and a link out of the workspace.
pub const WORKSPACE: Step = Step {
    name: "workspace",
    does: "as an administrator puts a report into the workspace of acme's files, and a symlink that leads out of it",
    run: |stage| {
        let script = "mkdir -p /workspace/reports /workspace/drafts && echo 'Revenue is up.' > /workspace/reports/q3.md \
                      && ln -sfn /etc/passwd /workspace/reports/leak.md && ls -l /workspace/reports";
        let pod = tool_pod(stage, "acme-mcp", "files")?["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        stage.kubectl(&["exec", "-n", "acme-mcp", &pod, "-c", "tool", "--", "sh", "-c", script])
    },
};

fn apply(stage: &Stage, file: &str) -> Result<()> {
    let path = repository().join("examples/quickstart").join(file);
    stage.kubectl(&["apply", "-f", &path.to_string_lossy()]).map(drop)
}

/// The pod of a server.
pub fn tool_pod(stage: &Stage, runtime: &str, server: &str) -> Result<Value> {
    let selector = format!("mcp-fleet.dev/server={server},app.kubernetes.io/component=server");
    let pods = stage.kubectl_json(&["get", "pods", "-n", runtime, "-l", &selector])?;
    match pods["items"].as_array().and_then(|all| all.first()) {
        Some(pod) => Ok(pod.clone()),
        None => bail!("the server {server} has no pod in {runtime}"),
    }
}

/// An error that names the objects of a kind that are not ready, and why.
fn all_ready(stage: &Stage, kind: &str) -> Result<()> {
    let objects = stage.kubectl_json(&["get", kind, "-A"])?;
    let empty = Vec::new();
    let mut waiting = Vec::new();
    for object in objects["items"].as_array().unwrap_or(&empty) {
        let conditions = object["status"]["conditions"].as_array().unwrap_or(&empty);
        let ready = conditions.iter().find(|condition| condition["type"] == json!("Ready"));
        if ready.is_none_or(|ready| ready["status"] != json!("True")) {
            let why = ready.map_or_else(String::new, |ready| format!("{}: {}", ready["reason"], ready["message"]));
            waiting.push(format!("{} ({why})", object["metadata"]["name"]));
        }
    }
    if !waiting.is_empty() {
        bail!("not ready: {}", waiting.join(", "));
    }
    Ok(())
}

fn helm(stage: &Stage, chart: &str, more: &[&str]) -> Result<()> {
    let path = repository().join("charts").join(chart);
    let helm = go::helm()?;
    let mut command = stage.command(&helm.to_string_lossy(), &["upgrade", "--install", chart])?;
    command.arg(&path).args(["--namespace", OPERATOR, "--create-namespace"]).args(more);
    command::run(&mut command)
}

fn last_line(text: &str) -> String {
    text.trim().lines().next_back().unwrap_or_default().to_owned()
}
