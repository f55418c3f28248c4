//! What the steps share: the cluster, the money they have spent, and tokens they have set aside.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cluster::Cluster;

/// The operator's namespace.
pub const OPERATOR: &str = "mcp-fleet-system";

/// What the steps share.
pub struct Stage {
    /// The cluster's name.
    pub name: String,
    /// How often a step that times something does so.
    pub trials: u32,
    /// The cluster, once it is up.
    cluster: Option<Cluster>,
    /// What was paid in this run, by tenant and principal: calls and millionths.
    pub paid: BTreeMap<(String, String), (u64, u64)>,
    /// What the ledgers held when the steps began: nothing, but on a cluster that an earlier run kept.
    pub paid_before: BTreeMap<(String, String), u64>,
    /// A token of beta's planner from the beginning of the demo.
    pub early_token: Option<String>,
}

impl Stage {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            trials: 1,
            cluster: None,
            paid: BTreeMap::new(),
            paid_before: BTreeMap::new(),
            early_token: None,
        }
    }

    /// The cluster is up.
    pub fn set_cluster(&mut self, cluster: Cluster) {
        self.cluster = Some(cluster);
    }

    /// The cluster.
    pub fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().context("the cluster is not up")
    }

    /// A command that runs where the cluster's addresses are reached.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.cluster()?.command(program)?;
        command.args(arguments);
        Ok(command)
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster()?.kubectl(arguments)
    }

    /// Runs kubectl and reads what it prints as JSON.
    pub fn kubectl_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.kubectl(&all)?).context("kubectl printed no JSON")
    }

    /// One value of a principal's credential Secret.
    pub fn credential(&self, namespace: &str, principal: &str, key: &str) -> Result<String> {
        let path = format!("jsonpath={{.data['{}']}}", key.replace('.', "\\."));
        let secret = format!("{principal}-mcp-credential");
        let encoded = self.kubectl(&["get", "secret", "-n", namespace, &secret, "-o", &path])?;
        let bytes = STANDARD.decode(encoded.trim()).context("a Secret's value is base64")?;
        if bytes.is_empty() {
            bail!("Secret {namespace}/{secret} has no {key}");
        }
        String::from_utf8(bytes).context("the value is not text")
    }

    /// The token of a principal, as it is now.
    pub fn token(&self, namespace: &str, principal: &str) -> Result<String> {
        self.credential(namespace, principal, "token")
    }

    /// Notes a call that was paid for.
    pub fn pay(&mut self, namespace: &str, principal: &str, micros: u64) {
        let entry = self.paid.entry((namespace.to_owned(), format!("{namespace}/{principal}"))).or_default();
        entry.0 += 1;
        entry.1 += micros;
    }

    /// The newest audit line of a tenant's gateway that `matches`; waits some seconds for it.
    pub fn audit(&self, runtime: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        until(Duration::from_secs(8), "an audit line", || {
            let logs = self.kubectl(&["logs", "-n", runtime, "deploy/gateway", "--tail=400"])?;
            let lines = logs.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines
                .filter(|line| line.get("audit").is_some())
                .find(|line| matches(line))
                .ok_or_else(|| anyhow!("no such audit line in {runtime}"))
        })
    }

    /// What Prometheus answers: the labels and the value of each series.
    pub fn promql(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let promtool = ["exec", "-n", "monitoring", "prometheus", "--", "promtool", "query", "instant", "-o", "json"];
        let mut arguments = promtool.to_vec();
        arguments.extend(["http://localhost:9090", query]);
        let answer: Value = serde_json::from_str(&self.kubectl(&arguments)?).context("promtool printed no JSON")?;
        let series = answer.as_array().context("promtool printed no list")?;
        series
            .iter()
            .map(|one| {
                let value = one["value"][1].as_str().and_then(|text| text.parse().ok());
                Ok((one["metric"].clone(), value.context("a series has a value")?))
            })
            .collect()
    }
}

/// Tries until it works, for at most so long; an error is that of the last try.
pub fn until<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                return Err(error.context(format!("waited {} s for {what}", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(250)),
        }
    }
}

/// A text without its line breaks.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Milliseconds since 1970.
pub fn unix_millis() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}
