//! State that the steps share: the cluster, the charges so far, and a token saved for later.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cluster::{Cluster, Way};
use crate::image::{self, Image};
use crate::tools::go;

/// Namespace of the operator.
pub const OPERATOR: &str = "mcp-fleet-system";

/// State of a running demo.
pub struct Demo {
    /// Name of the cluster.
    pub name: String,
    /// Number of measurements in a step that measures time.
    pub trials: u32,
    /// How to run the cluster.
    pub way: Way,
    /// Whether to build the product as it is released.
    pub release: bool,
    /// Builds the images while the cluster starts.
    images: Option<JoinHandle<Result<Vec<PathBuf>>>>,
    /// The cluster, once it is up.
    cluster: Option<Cluster>,
    /// Charges of this run, by tenant and principal: number of calls, and price in millionths.
    pub charges: BTreeMap<(String, String), (u64, u64)>,
    /// Charges in the ledgers when the demo began, in millionths. Empty unless an earlier run kept the cluster.
    pub charges_before: BTreeMap<(String, String), u64>,
    /// Token that beta's planner had at the beginning of the demo.
    pub early_token: Option<String>,
}

impl Demo {
    /// Returns a demo without a cluster.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            trials: 1,
            way: Way::default(),
            release: false,
            images: None,
            cluster: None,
            charges: BTreeMap::new(),
            charges_before: BTreeMap::new(),
            early_token: None,
        }
    }

    /// Returns the images of the demo.
    pub fn image_list(&self) -> &'static [&'static Image] {
        if self.release { image::DEMO_RELEASED } else { image::DEMO }
    }

    /// Starts to build the images, and then helm, which needs libraries of Kubernetes. The cluster starts meanwhile, and both wait
    /// for downloads at times.
    pub fn start_images(&mut self) -> Result<()> {
        let (images, builder) = (self.image_list(), self.way.builder()?);
        self.images = Some(thread::spawn(move || {
            let archives = images.iter().map(|one| image::build(one, builder)).collect::<Result<_>>()?;
            go::helm()?;
            Ok(archives)
        }));
        Ok(())
    }

    /// Waits until the images are built, and returns their archives in the order of [`Self::image_list`].
    pub fn finish_images(&mut self) -> Result<Vec<PathBuf>> {
        let build = self.images.take().context("the images are not being built")?;
        build.join().map_err(|_| anyhow!("the build of the images crashed"))?
    }

    /// Sets the cluster, once it is up.
    pub fn set_cluster(&mut self, cluster: Cluster) {
        self.cluster = Some(cluster);
    }

    /// Returns the cluster, or an error if it is not up yet.
    pub fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().context("the cluster is not up")
    }

    /// Returns a command that runs in the cluster's network.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.cluster()?.command(program)?;
        command.args(arguments);
        Ok(command)
    }

    /// Runs kubectl and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster()?.kubectl(arguments)
    }

    /// Runs kubectl and parses what it printed as JSON.
    pub fn kubectl_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.kubectl(&all)?).context("failed to parse the output of kubectl as JSON")
    }

    /// Returns one value of the credential Secret of a principal.
    pub fn credential(&self, namespace: &str, principal: &str, key: &str) -> Result<String> {
        let path = format!("jsonpath={{.data['{}']}}", key.replace('.', "\\."));
        let secret = format!("{principal}-mcp-credential");
        let encoded = self.kubectl(&["get", "secret", "-n", namespace, &secret, "-o", &path])?;
        let bytes = STANDARD
            .decode(encoded.trim())
            .with_context(|| format!("{key} of Secret {namespace}/{secret} is not base64"))?;
        if bytes.is_empty() {
            bail!("Secret {namespace}/{secret} has no {key}");
        }
        String::from_utf8(bytes).with_context(|| format!("{key} of Secret {namespace}/{secret} is not text"))
    }

    /// Returns the current token of a principal.
    pub fn token(&self, namespace: &str, principal: &str) -> Result<String> {
        self.credential(namespace, principal, "token")
    }

    /// Records the charge of one call.
    pub fn record_charge(&mut self, namespace: &str, principal: &str, micros: u64) {
        let entry = self.charges.entry((namespace.to_owned(), format!("{namespace}/{principal}"))).or_default();
        entry.0 += 1;
        entry.1 += micros;
    }

    /// Returns the newest audit line of a tenant's gateway for which `matches` is true. Waits for one.
    pub fn audit(&self, runtime: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        until(Duration::from_secs(30), "a matching audit line", || {
            let logs = self.kubectl(&["logs", "-n", runtime, "deploy/gateway", "--tail=400"])?;
            let lines = logs.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines
                .filter(|line| line.get("audit").is_some())
                .find(|line| matches(line))
                .ok_or_else(|| anyhow!("the gateway in {runtime} has logged no such line"))
        })
    }

    /// Runs a Prometheus query. Returns the labels and the value of each series.
    pub fn promql(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let promtool = ["exec", "-n", "monitoring", "prometheus", "--", "promtool", "query", "instant", "-o", "json"];
        let mut arguments = promtool.to_vec();
        arguments.extend(["http://localhost:9090", query]);
        let result: Value = serde_json::from_str(&self.kubectl(&arguments)?)
            .context("failed to parse the output of promtool as JSON")?;
        let series = result.as_array().context("promtool did not print a list")?;
        series
            .iter()
            .map(|one| {
                let value = one["value"][1].as_str().and_then(|text| text.parse().ok());
                Ok((one["metric"].clone(), value.context("a series has no value")?))
            })
            .collect()
    }
}

/// Repeats `attempt` until it succeeds, for at most `limit`. Returns the error of the last attempt.
pub fn until<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                return Err(error.context(format!("gave up waiting for {what} after {} s", limit.as_secs())));
            }
            Err(_) => thread::sleep(Duration::from_millis(250)),
        }
    }
}

/// Returns a text on one line.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the time in milliseconds since 1970.
pub fn unix_millis() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}
