//! The setup: a cluster, images, charts, the quickstart, Prometheus, and files to read.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::demo::report::Step;
use crate::demo::state::{Demo, OPERATOR, until};
use crate::test::charts;
use crate::tools::{command, go, progress, repository};

/// Starts the cluster.
pub const CLUSTER: Step = Step {
    name: "cluster",
    action: "Start a new Kubernetes cluster on this machine, and remove one that an earlier run left behind.",
    purpose: "Everything that follows runs on real Kubernetes components, not on mocks.",
    run: |demo| {
        let options = Options { name: demo.name.clone(), apiserver_only: false, way: demo.way.clone() };
        demo.start_images()?;
        Cluster::down(&options.name)?;
        demo.set_cluster(Cluster::up(&options)?);
        let version = demo.kubectl_json(&["version"])?["serverVersion"]["gitVersion"].clone();
        let nodes = demo.kubectl(&["get", "nodes", "--no-headers"])?;
        Ok(format!("Kubernetes {}: {}", version.as_str().unwrap_or("?"), nodes.trim()))
    },
};

/// Builds the images and loads them.
pub const IMAGES: Step = Step {
    name: "images",
    action: "Build the images of operator, mcp-pod, two MCP servers, the MCP Inspector and Prometheus, and load them.",
    purpose: "The MCP servers are published packages. They know nothing of MCP Fleet and run unmodified.",
    run: |demo| {
        let mut loaded = Vec::new();
        let archives = demo.finish_images()?;
        for (image, archive) in demo.image_list().iter().zip(archives) {
            demo.cluster()?.load_image(&archive)?;
            let size = archive.metadata()?.len() / 1_000_000;
            progress::note(format!("loaded {} ({size} MB)", image.reference));
            loaded.push(format!("{} {size} MB", image.name));
        }
        Ok(loaded.join(", "))
    },
};

/// Installs the charts with helm.
pub const CHARTS: Step = Step {
    name: "charts",
    action: "Install charts/mcp-fleet-crds and charts/mcp-fleet with helm, and wait until both operator replicas are \
             ready.",
    purpose: "This is how a platform team installs MCP Fleet on its own cluster.",
    run: |demo| {
        helm(demo, "mcp-fleet-crds", &[])?;
        let endpoints = demo.kubectl_json(&["get", "endpoints", "kubernetes", "-n", "default"])?;
        let address = endpoints["subsets"][0]["addresses"][0]["ip"].as_str().unwrap_or_default();
        let port = endpoints["subsets"][0]["ports"][0]["port"].as_u64().unwrap_or_default();
        let endpoint = format!("apiServer.endpoints=[{{\"cidr\":\"{address}/32\",\"port\":{port}}}]");
        helm(demo, "mcp-fleet", &["--set-json", &endpoint, "--set", "monitoring.namespace=monitoring"])?;
        let rollout = ["rollout", "status", "deployment/mcp-fleet-operator", "-n", OPERATOR, "--timeout=90s"];
        Ok(last_line(&demo.kubectl(&rollout)?))
    },
};

/// Starts Prometheus.
pub const MONITORING: Step = Step {
    name: "monitoring",
    action: "Start a Prometheus that scrapes operators, gateways and tool pods, and evaluates the alerts of the chart.",
    purpose: "Later steps compare the spend metrics in Prometheus with the real calls, and show an alert.",
    run: |demo| {
        let content = serde_yaml_ng::to_string(&rules()?)?;
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "prometheus-rules", "namespace": "monitoring"},
            "data": {"mcp-fleet.yaml": content},
        });
        demo.cluster()?.kubectl_with_input(&["apply", "-f", "-"], include_bytes!("../monitoring.yaml"))?;
        demo.cluster()?.kubectl_with_input(&["apply", "-f", "-"], map.to_string().as_bytes())?;
        let ready = ["wait", "--for=condition=Ready", "pod/prometheus", "-n", "monitoring", "--timeout=90s"];
        Ok(last_line(&demo.kubectl(&ready)?))
    },
};

/// Returns the rules of the chart, as a rules file of Prometheus.
pub fn rules() -> Result<Value> {
    let enabled = ["--set", "monitoring.prometheusRule.enabled=true"];
    let objects = charts::objects("mcp-fleet", OPERATOR, &enabled)?;
    let rule = objects.into_iter().find(|object| object["kind"] == "PrometheusRule");
    Ok(rule.context("the chart has no PrometheusRule")?["spec"].take())
}

/// Applies the quickstart, which defines two tenants.
pub const QUICKSTART: Step = Step {
    name: "quickstart",
    action: "Apply examples/quickstart, which defines both tenants, and wait until all its objects are ready.",
    purpose: "These few YAML files are all that a team writes. From them, the operator creates namespaces, network \
              policies, certificates, credentials and pods.",
    run: |demo| {
        let ready = |kind: &str| {
            progress::note(format!("waiting until all {kind} are ready"));
            until(Duration::from_secs(120), kind, || all_ready(demo, kind))
        };
        apply(demo, "00-tenants.yaml")?;
        ready("mcptenants")?;
        for file in ["10-acme.yaml", "20-beta.yaml", "30-agents.yaml"] {
            apply(demo, file)?;
        }
        for kind in ["mcpservers", "mcpscopes", "mcpprincipals", "mcpbudgets", "mcptenants"] {
            ready(kind)?;
        }
        for namespace in ["acme", "beta"] {
            demo.kubectl(&["wait", "--for=condition=Ready", "pod/agent", "-n", namespace, "--timeout=120s"])?;
        }
        demo.kubectl(&["get", "mcp", "-A", "--no-headers"])
    },
};

/// Puts a file and a malicious symlink into a workspace.
pub const WORKSPACE: Step = Step {
    name: "workspace",
    action: "As an administrator, put a report and a symlink to /etc/passwd into the workspace of acme's server files.",
    purpose: "Later steps read the report, and try to escape from the workspace through the symlink.",
    run: |demo| {
        let script = "mkdir -p /workspace/reports /workspace/drafts \
                      && echo 'Revenue is up.' > /workspace/reports/q3.md \
                      && ln -sfn /etc/passwd /workspace/reports/leak.md && ls -l /workspace/reports";
        let pod = tool_pod(demo, "acme-mcp", "files")?["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        demo.kubectl(&["exec", "-n", "acme-mcp", &pod, "-c", "tool", "--", "sh", "-c", script])
    },
};

fn apply(demo: &Demo, file: &str) -> Result<()> {
    let path = repository().join("examples/quickstart").join(file);
    demo.kubectl(&["apply", "-f", &path.to_string_lossy()]).map(drop)
}

/// Returns the pod of a server.
pub fn tool_pod(demo: &Demo, runtime: &str, server: &str) -> Result<Value> {
    let selector = format!("mcp-fleet.dev/server={server},app.kubernetes.io/component=server");
    let pods = demo.kubectl_json(&["get", "pods", "-n", runtime, "-l", &selector])?;
    match pods["items"].as_array().and_then(|all| all.first()) {
        Some(pod) => Ok(pod.clone()),
        None => bail!("server {server} has no pod in namespace {runtime}"),
    }
}

/// Checks that all objects of a kind are ready. The error names those that are not, with the reason.
fn all_ready(demo: &Demo, kind: &str) -> Result<()> {
    let objects = demo.kubectl_json(&["get", kind, "-A"])?;
    let empty = Vec::new();
    let mut waiting = Vec::new();
    for object in objects["items"].as_array().unwrap_or(&empty) {
        let conditions = object["status"]["conditions"].as_array().unwrap_or(&empty);
        let ready = conditions.iter().find(|condition| condition["type"] == json!("Ready"));
        if ready.is_none_or(|ready| ready["status"] != json!("True")) {
            let reason = ready.map_or_else(String::new, |ready| format!("{}: {}", ready["reason"], ready["message"]));
            waiting.push(format!("{} ({reason})", object["metadata"]["name"]));
        }
    }
    if !waiting.is_empty() {
        bail!("not ready: {}", waiting.join(", "));
    }
    Ok(())
}

fn helm(demo: &Demo, chart: &str, options: &[&str]) -> Result<()> {
    let path = repository().join("charts").join(chart);
    let helm = go::helm()?;
    let mut command = demo.command(&helm.to_string_lossy(), &["upgrade", "--install", chart])?;
    command.arg(&path).args(["--namespace", OPERATOR, "--create-namespace"]).args(options);
    command::run(&mut command)
}

fn last_line(text: &str) -> String {
    text.trim().lines().next_back().unwrap_or_default().to_owned()
}
