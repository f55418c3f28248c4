//! The operator under test, as a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::config::Kubeconfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::Process;

/// Namespace of the operator.
pub(crate) const NAMESPACE: &str = "mcp-fleet-system";

/// Writes a kubeconfig with the rights of the operator's ServiceAccount, and returns its path. The administrator's own rights
/// would also exempt the operator from priority and fairness.
pub(crate) fn as_operator(kubeconfig: &Path, directory: &Path) -> anyhow::Result<PathBuf> {
    let mut config = Kubeconfig::read_from(kubeconfig)?;
    for user in config.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
        user.impersonate = Some(format!("system:serviceaccount:{NAMESPACE}:mcp-fleet-operator"));
    }
    let path = directory.join("operator.kubeconfig");
    // JSON is YAML.
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(path)
}

/// How to start a replica.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) binary: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) name: &'static str,
    pub(crate) control_port: u16,
    pub(crate) admin_port: u16,
    /// File of its log, which is appended to.
    pub(crate) log: PathBuf,
}

/// A running replica.
#[derive(Debug)]
pub(crate) struct Operator {
    process: Process,
    admin_port: u16,
    log: PathBuf,
}

/// Values of a counter, by two of its labels.
pub(crate) type Counts = BTreeMap<(String, String), u64>;

/// CPU time, requests and reconciles of a replica so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Requests to the API server, by verb and resource.
    pub(crate) requests: Counts,
    /// Reconciles, by controller and outcome.
    pub(crate) reconciles: Counts,
}

impl Usage {
    /// Returns what was used since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let since = |all: &Counts, before: &Counts| {
            let counts =
                all.iter().map(|(key, count)| (key.clone(), count - before.get(key).copied().unwrap_or_default()));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            requests: since(&self.requests, &before.requests),
            reconciles: since(&self.reconciles, &before.reconciles),
        }
    }

    /// Returns what was used in both.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        self.cpu += other.cpu;
        for (all, more) in [(&mut self.requests, &other.requests), (&mut self.reconciles, &other.reconciles)] {
            for (key, count) in more {
                *all.entry(key.clone()).or_default() += count;
            }
        }
        self
    }
}

impl Replica {
    /// Returns a replica that serves on free ports.
    pub(crate) fn new(binary: &Path, kubeconfig: &Path, name: &'static str, logs: &Path) -> anyhow::Result<Self> {
        let listeners = [std::net::TcpListener::bind("127.0.0.1:0")?, std::net::TcpListener::bind("127.0.0.1:0")?];
        let port = |listener: &std::net::TcpListener| listener.local_addr().map(|address| address.port());
        Ok(Self {
            binary: binary.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            name,
            control_port: port(&listeners[0])?,
            admin_port: port(&listeners[1])?,
            log: logs.join(format!("{name}.log")),
        })
    }

    /// Starts the replica.
    pub(crate) fn start(&self) -> anyhow::Result<Operator> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.env("KUBECONFIG", &self.kubeconfig).stderr(log).args([
            "--mcp-pod-image=mcp-fleet.local/mcp-pod:bench".to_owned(),
            "--service-address=10.96.0.77".to_owned(),
            format!("--namespace={NAMESPACE}"),
            format!("--pod-name={}", self.name),
            format!("--listen=127.0.0.1:{}", self.control_port),
            format!("--metrics-listen=127.0.0.1:{}", self.admin_port),
        ]);
        Ok(Operator { process: Process::quiet(&mut command)?, admin_port: self.admin_port, log: self.log.clone() })
    }
}

impl Operator {
    /// Waits until the replica is ready.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        self.until("become ready", async |this| this.get("/readyz").await.is_ok_and(|answer| answer.contains(" 200 ")))
            .await
    }

    /// Waits until the replica leads.
    pub(crate) async fn leads(&mut self) -> anyhow::Result<()> {
        let leads =
            async |this: &Self| this.get("/metrics").await.is_ok_and(|text| text.contains("\nmcp_fleet_leader 1"));
        self.until("lead", leads).await
    }

    async fn until(&mut self, what: &str, condition: impl AsyncFn(&Self) -> bool) -> anyhow::Result<()> {
        let started = Instant::now();
        while !condition(self).await {
            self.process.check("the operator").with_context(|| format!("its log is {}", self.log.display()))?;
            if started.elapsed() > Duration::from_secs(180) {
                bail!("the operator did not {what} within three minutes; its log is {}", self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Returns what the replica has used so far.
    pub(crate) async fn usage(&self) -> anyhow::Result<Usage> {
        let text = self.get("/metrics").await?;
        let requests = counts(&text, "mcp_fleet_api_requests_total", ["verb", "resource"])?;
        let reconciles = counts(&text, "mcp_fleet_reconciles_total", ["controller", "outcome"])?;
        Ok(Usage { cpu: self.process.cpu()?, requests, reconciles })
    }

    /// Returns the resident memory, in bytes: now, and the most so far.
    pub(crate) fn memory(&self) -> anyhow::Result<(u64, u64)> {
        Ok((self.process.resident()?, self.process.peak_resident()?))
    }

    /// Lets the replica end as Kubernetes would.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.process.terminate()?;
        let started = Instant::now();
        while self.process.check("the operator").is_ok() && started.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }
}

/// Reads a counter from metrics in Prometheus' text format.
fn counts(metrics: &str, name: &str, labels: [&str; 2]) -> anyhow::Result<Counts> {
    let prefix = format!("{name}{{");
    let mut counts = Counts::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix(&prefix)) {
        let (found, count) = line.split_once("} ").context("a metric has no value")?;
        let [first, second] = labels.map(|label| {
            let value = found.split(',').find_map(|label_of| label_of.strip_prefix(&format!("{label}=")));
            value.unwrap_or_default().trim_matches('"').to_owned()
        });
        counts.insert((first, second), count.parse()?);
    }
    Ok(counts)
}
