//! The sequence of measurements.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Client;
use tokio::task::JoinSet;

use super::api::{client, prepare, send_all, server_cpu};
use super::gateway::Gateways;
use super::objects::{count, fleet, set_limit, tenant_name};
use super::operator::{NAMESPACE, Operator, Replica, Usage, as_operator};
use super::report::Report;
use super::tracker::Tracker;
use super::{Args, Size, bare, cluster_side};

/// How long the idle operator is observed.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(60);
/// Changes per second, and how many.
pub(super) const CHANGE_RATE: u32 = 10;
pub(super) const CHANGES: usize = 300;

/// One growth of the fleet.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    /// Objects of our kinds that were added.
    pub(crate) objects: usize,
    /// Time in which they were written.
    pub(crate) load: Duration,
    /// Time from the first write until every object was ready.
    pub(crate) converged: Duration,
    /// What the operator used.
    pub(crate) usage: Usage,
    /// CPU time of the API server.
    pub(crate) server_cpu: Duration,
}

/// What was measured after the fleet had converged.
#[derive(Clone, Debug)]
pub(crate) struct Afterwards {
    /// CPU and requests of the idle operator, in [`IDLE_TIME`], and status writes.
    pub(crate) idle: Usage,
    /// Resident memory when idle.
    pub(crate) idle_memory: u64,
    /// Times from the API server's answer until the gateway has the new policy, sorted.
    pub(crate) published: Vec<Duration>,
    /// Status writes for the changes.
    pub(crate) change_writes: usize,
    /// From the start of the process until it is ready, and until every policy is proved to be current.
    pub(crate) restart: (Duration, Duration),
    /// From the end of the leader until the other replica leads, and until every policy is proved to be current.
    pub(crate) failover: (Duration, Duration),
}

struct Testbed {
    client: Client,
    size: Size,
    limit: Duration,
    operator: Option<Operator>,
    tracker: Tracker,
    gateways: Gateways,
    replicas: [Replica; 2],
}

/// Runs all measurements.
pub(crate) async fn run(args: &Args) -> anyhow::Result<Report> {
    let logs = tempfile::Builder::new().prefix("fleet-bench-").tempdir()?;
    let result = Box::pin(measure(args, logs.path())).await;
    if result.is_err() {
        eprintln!("the logs of the operator are in {}", logs.keep().display());
    }
    result
}

async fn measure(args: &Args, logs: &std::path::Path) -> anyhow::Result<Report> {
    let started = Instant::now();
    let progress = |text: &str| eprintln!("[{:>4} s] {text}", started.elapsed().as_secs());
    let client = client(&args.kubeconfig).await?;
    prepare(&client, NAMESPACE, &args.chart).await?;
    let kubeconfig = as_operator(&args.kubeconfig, logs)?;
    let replica = |name| Replica::new(&args.operator, &kubeconfig, name, logs);
    let replicas = [replica("operator-1")?, replica("operator-2")?];
    let mut operator = replicas[0].start()?;
    operator.leads().await?;

    // Dropping the set ends all tasks.
    let mut tasks = JoinSet::new();
    let tracker = Tracker::start(&client, &mut tasks);
    let gateways = Gateways::new(&client, replicas.iter().map(|replica| replica.control_port).collect());
    let mut namespaces = cluster_side::start(&client, &mut tasks);
    let all = gateways.clone();
    tasks.spawn(async move {
        let (mut running, mut known) = (JoinSet::new(), std::collections::HashSet::new());
        while let Some(namespace) = namespaces.recv().await {
            if known.insert(namespace.clone()) {
                running.spawn(all.clone().run(namespace));
            }
        }
    });

    let limit = Duration::from_secs(args.limit * 60);
    let mut testbed = Testbed { client, size: args.size, limit, operator: Some(operator), tracker, gateways, replicas };
    let tenants = args.size.tenants;
    let first = (tenants / 10).max(1);
    progress(&format!("converging the first {first} of {tenants} tenants"));
    let small = testbed.grow(0..first).await?;
    progress("converging the other tenants");
    let large = testbed.grow(first..tenants).await?;
    let status_writes = testbed.tracker.status_writes();
    let (memory, peak_memory) = testbed.operator()?.memory()?;
    let afterwards = if args.converge_only { None } else { Some(testbed.afterwards(&progress).await?) };

    progress("writing copies of the same objects without an operator");
    let Testbed { client, operator, .. } = testbed;
    if let Some(operator) = operator {
        operator.stop().await?;
    }
    tasks.shutdown().await;
    let (bare, rest) = bare::measure(&client, first).await?;
    progress("done");
    Ok(Report { size: args.size, small, large, status_writes, memory, peak_memory, afterwards, bare, rest })
}

impl Testbed {
    /// Adds tenants and waits until they have converged.
    async fn grow(&mut self, tenants: std::ops::Range<usize>) -> anyhow::Result<Growth> {
        let objects = count(self.size, tenants.len());
        let (ready, total) = (self.tracker.progress().1, count(self.size, tenants.end));
        let before = self.operator()?.usage().await?;
        let server_before = server_cpu(&self.client).await?;
        let started = Instant::now();
        let load = send_all(&self.client, &fleet(self.size, tenants)).await?;
        self.tracker.converged(ready + objects, self.limit).await.with_context(|| format!("{total} objects in all"))?;
        let converged = started.elapsed();
        let usage = self.operator()?.usage().await?.since(&before);
        let server_cpu = server_cpu(&self.client).await?.saturating_sub(server_before);
        Ok(Growth { objects, load, converged, usage, server_cpu })
    }

    async fn afterwards(&mut self, progress: &impl Fn(&str)) -> anyhow::Result<Afterwards> {
        // Statuses that are held back, and new leases of watches.
        tokio::time::sleep(Duration::from_secs(15)).await;
        progress("watching the operator idle for a minute");
        let before = self.operator()?.usage().await?;
        tokio::time::sleep(IDLE_TIME).await;
        let idle = self.operator()?.usage().await?.since(&before);
        let (idle_memory, _) = self.operator()?.memory()?;

        progress("changing 10 objects a second");
        self.tracker.take_writes();
        let published = self.change().await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let change_writes = self.tracker.take_writes();

        progress("restarting the operator");
        let restart = self.restart().await?;
        progress("killing the leader while another replica stands by");
        let failover = self.fail_over().await?;
        Ok(Afterwards { idle, idle_memory, published, change_writes, restart, failover })
    }

    /// Changes objects of different tenants at a constant rate. Returns the times until their gateways had the new
    /// policies, sorted.
    async fn change(&self) -> anyhow::Result<Vec<Duration>> {
        let mut interval = tokio::time::interval(Duration::from_secs(1) / CHANGE_RATE);
        let mut changes = JoinSet::new();
        for (number, calls) in (0..CHANGES).zip(100..) {
            interval.tick().await;
            // Neighbours are spread over the tenants, and over the principals of each.
            let (tenant, round) = (tenant_name(number % self.size.tenants), number / self.size.tenants);
            let principal = round % self.size.principals;
            let (client, gateways) = (self.client.clone(), self.gateways.clone());
            changes.spawn(async move {
                set_limit(&tenant, principal, calls).send(&client).await?;
                let answered = Instant::now();
                let pushed = gateways.limited(&format!("{tenant}-mcp"), &format!("agent-{principal}"), calls).await?;
                anyhow::Ok(pushed.saturating_duration_since(answered))
            });
        }
        let mut times = changes.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        times.sort_unstable();
        Ok(times)
    }

    async fn restart(&mut self) -> anyhow::Result<(Duration, Duration)> {
        if let Some(operator) = self.operator.take() {
            operator.stop().await?;
        }
        let started = Instant::now();
        let operator = self.operator.insert(self.replicas[0].start()?);
        operator.ready().await?;
        let ready = started.elapsed();
        let fresh = self.gateways.all_fresh(started, self.limit).await?;
        Ok((ready, fresh.saturating_duration_since(started)))
    }

    async fn fail_over(&mut self) -> anyhow::Result<(Duration, Duration)> {
        let mut standby = self.replicas[1].start()?;
        standby.ready().await?;
        // The new leader starts with a full cache, as a replica does that has run for a while.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let killed = Instant::now();
        // Dropping it kills the process.
        drop(self.operator.replace(standby));
        self.operator()?.leads().await?;
        let leads = killed.elapsed();
        let fresh = self.gateways.all_fresh(killed + leads, self.limit).await?;
        Ok((leads, fresh.saturating_duration_since(killed)))
    }

    fn operator(&mut self) -> anyhow::Result<&mut Operator> {
        self.operator.as_mut().context("no operator runs")
    }
}
