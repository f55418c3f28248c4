//! The report, as Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use super::Size;
use super::api::CONNECTIONS;
use super::bare::Bare;
use super::operator::Usage;
use super::phases::{Afterwards, CHANGE_RATE, CHANGES, Growth, IDLE_TIME};
use super::tracker::StatusWrites;

/// All results.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) size: Size,
    /// The first tenth of the tenants.
    pub(crate) small: Growth,
    /// The other tenants.
    pub(crate) large: Growth,
    pub(crate) status_writes: StatusWrites,
    /// Resident memory of the operator after convergence, and the most until then.
    pub(crate) memory: u64,
    pub(crate) peak_memory: u64,
    pub(crate) afterwards: Option<Afterwards>,
    /// The bare writes of the objects, and of the statuses, EndpointSlices and Events that belong to them.
    pub(crate) bare: Bare,
    pub(crate) rest: Bare,
}

impl Report {
    /// Returns the report as Markdown.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let Size { tenants, servers, scopes, principals } = self.size;
        let _ = writeln!(
            text,
            "{tenants} tenants, each with {servers} servers, {scopes} scopes and {principals} principals: {} objects of \
             our kinds.\n\n\
             etcd, the API server, one operator and the benchmark share this machine. There is no kubelet and no \
             controller manager: the benchmark itself writes the statuses of workloads and quotas, at once, and connects \
             as the gateway of each tenant, which acknowledges policies without running them. The operator has the rights \
             of its chart. Load and bare writes use {CONNECTIONS} connections. An object has converged when its \
             conditions Ready and PolicyCurrent are True as it is written.\n",
            self.small.objects + self.large.objects
        );
        self.convergence(&mut text);
        self.requests(&mut text);
        if let Some(afterwards) = &self.afterwards {
            render_afterwards(&mut text, afterwards);
        }
        self.targets(&mut text);
        text
    }

    fn convergence(&self, text: &mut String) {
        let Bare { writes, took, server_cpu } = self.bare;
        let _ = writeln!(text, "| | first tenth | the rest |\n|---|---|---|");
        let mut row = |name: &str, value: &dyn Fn(&Growth) -> String| {
            let _ = writeln!(text, "| {name} | {} | {} |", value(&self.small), value(&self.large));
        };
        row("objects of our kinds", &|it| it.objects.to_string());
        row("load", &|it| seconds(it.load));
        row("converged, from the first write", &|it| seconds(it.converged));
        row("time per object", &|it| format!("{:.2} ms", per_object(it.converged, it)));
        row("CPU of the operator", &|it| seconds(it.usage.cpu));
        row("CPU of the operator per object", &|it| format!("{:.2} ms", per_object(it.usage.cpu, it)));
        row("CPU of the API server", &|it| seconds(it.server_cpu));
        row("requests of the operator per object", &|it| format!("{:.1}", requests_per_object(it)));
        let _ = writeln!(
            text,
            "\nBare writes of the {writes} objects of the rest, those of the operator included and without statuses: {}, \
             {:.0} a second, {} CPU of the API server. Convergence of the rest took {:.2} × that time. Bare writes of their \
             {} statuses, EndpointSlices and Events: {}, {} CPU of the API server. Convergence took {:.2} × the time of \
             all these. Resident memory of the operator: {:.0} MiB, {:.0} MiB at most. Status writes: {:.2} per object, {} \
             at most.\n",
            seconds(took),
            number(writes) / took.as_secs_f64(),
            seconds(server_cpu),
            self.ratio(),
            self.rest.writes,
            seconds(self.rest.took),
            seconds(self.rest.server_cpu),
            self.large.converged.as_secs_f64() / (took + self.rest.took).as_secs_f64(),
            mib(self.memory),
            mib(self.peak_memory),
            self.status_writes.mean,
            self.status_writes.most,
        );
    }

    fn requests(&self, text: &mut String) {
        let usage = self.small.usage.clone().plus(&self.large.usage);
        let objects = number(self.small.objects + self.large.objects);
        for (what, counts) in [("requests", usage.requests), ("reconciles", usage.reconciles)] {
            let mut rows: Vec<_> = counts.into_iter().collect();
            rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let _ = writeln!(text, "| {what} of the operator | number | per object |\n|---|---|---|");
            for ((first, second), count) in rows.iter().take(20) {
                #[allow(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
                let per_object = *count as f64 / objects;
                let _ = writeln!(text, "| {first} {second} | {count} | {per_object:.2} |");
            }
            text.push('\n');
        }
    }

    fn ratio(&self) -> f64 {
        self.large.converged.as_secs_f64() / self.bare.took.as_secs_f64()
    }

    fn targets(&self, text: &mut String) {
        let _ = writeln!(text, "| target | limit | measured | |\n|---|---|---|---|");
        let mut row = |name: &str, limit: f64, value: f64, unit: &str| {
            let mark = if value <= limit { "✓" } else { "✗" };
            let _ = writeln!(text, "| {name} | ≤ {limit} {unit} | {value:.2} {unit} | {mark} |");
        };
        row("converged ÷ bare writes", 1.5, self.ratio(), "×");
        row("status writes per object, at most", 2.0, number(self.status_writes.most), "");
        let all = |growth: &Growth| number(growth.objects) * requests_per_object(growth);
        let objects = number(self.small.objects + self.large.objects);
        row("API requests per object", 8.0, (all(&self.small) + all(&self.large)) / objects, "");
        row("resident memory of the operator, at most", 250.0, mib(self.peak_memory), "MiB");
        let growth = per_object(self.large.usage.cpu, &self.large) / per_object(self.small.usage.cpu, &self.small);
        row("CPU of the operator per object, rest ÷ first tenth", 1.2, growth, "×");
        if let Some(afterwards) = &self.afterwards {
            row("CPU of the idle operator", 3.0, idle_percent(afterwards), "% of a core");
            row("writes of the idle operator other than Leases", 0.0, number(idle_writes(&afterwards.idle)), "");
            row("change to published, p99", 200.0, quantile(&afterwards.published, 99).as_secs_f64() * 1e3, "ms");
            row("restart to ready", 20.0, afterwards.restart.0.as_secs_f64(), "s");
        }
    }
}

fn render_afterwards(text: &mut String, afterwards: &Afterwards) {
    let Afterwards { idle, idle_memory, published, change_writes, restart, failover } = afterwards;
    let _ = writeln!(text, "| after convergence | |\n|---|---|");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    row("CPU of the idle operator", format!("{:.1} % of a core", idle_percent(afterwards)));
    row("requests of the idle operator", format!("{:.1} a second", total(idle) / IDLE_TIME.as_secs_f64()));
    row("writes of the idle operator other than Leases", idle_writes(idle).to_string());
    row("resident memory of the idle operator", format!("{:.0} MiB", mib(*idle_memory)));
    row(
        &format!("from the answer to a change until its gateway has the policy, {CHANGE_RATE} changes a second"),
        format!("p50 {:.0?}, p99 {:.0?}", quantile(published, 50), quantile(published, 99)),
    );
    row("status writes per change", format!("{:.2}", number(*change_writes) / number(CHANGES)));
    row("restart until ready", seconds(restart.0));
    row("restart until every gateway has heard that its policy is current", seconds(restart.1));
    row("leader killed until the other replica leads", seconds(failover.0));
    row("leader killed until every gateway has heard that its policy is current", seconds(failover.1));
    text.push('\n');
}

fn per_object(time: Duration, growth: &Growth) -> f64 {
    time.as_secs_f64() * 1000.0 / number(growth.objects)
}

fn requests_per_object(growth: &Growth) -> f64 {
    total(&growth.usage) / number(growth.objects)
}

#[allow(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
fn total(usage: &Usage) -> f64 {
    usage.requests.values().sum::<u64>() as f64
}

fn idle_percent(afterwards: &Afterwards) -> f64 {
    100.0 * afterwards.idle.cpu.as_secs_f64() / IDLE_TIME.as_secs_f64()
}

/// Counts writes of other objects than the Lease.
fn idle_writes(idle: &Usage) -> usize {
    let is_write = |verb: &str| !["get", "list", "watch"].contains(&verb);
    let writes = idle.requests.iter().filter(|((verb, resource), _)| is_write(verb) && resource != "leases");
    writes.map(|(_, count)| usize::try_from(*count).unwrap_or(usize::MAX)).sum()
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[allow(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

#[allow(clippy::cast_precision_loss, reason = "counts of objects are far below 2^53")]
fn number(count: usize) -> f64 {
    count as f64
}
