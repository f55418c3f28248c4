//! A real Prometheus on loopback. It scrapes metrics like those of a small fleet, and answers every expression of the rules
//! and dashboards.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::chart::Monitoring;
use crate::tools::{command, repository};

/// What is scraped, with the labels that the chart's PodMonitors add.
const TARGETS: [(&str, &[(&str, &str)]); 3] =
    [("operator", &[]), ("gateway", &[("tenant", "acme")]), ("server", &[("tenant", "acme"), ("server", "files")])];
/// How long Prometheus may take to start, and to have data for all recording rules.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs all expressions. Returns those that failed, or that returned nothing.
pub fn run(monitoring: &Monitoring, programs: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut jobs = Vec::new();
    for (target, labels) in TARGETS {
        let path = repository().join("tests/monitoring").join(format!("{target}.prom"));
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let address = serve(text)?;
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        jobs.push(format!(
            "- job_name: {target}\n  static_configs:\n  - targets: ['{address}']\n    labels: {{pod: {target}-0, {}}}\n  \
             metric_relabel_configs:\n  - {{action: labeldrop, regex: exported_tenant}}\n",
            labels.join(", ")
        ));
    }
    let jobs = jobs.concat();
    let config = folder.join("prometheus.yaml");
    let rules = folder.join("complete.yaml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n{jobs}",
            rules.display()
        ),
    )?;
    let server = Prometheus::start(programs, &config, folder)?;
    server.wait_for_data()?;
    let mut failures = Vec::new();
    for rule in monitoring.rules() {
        let expression = rule["expr"].as_str().unwrap_or_default();
        // Alerts of a healthy fleet return nothing.
        let result = server.query(expression);
        let empty = rule["record"].is_string() && result.as_ref().is_ok_and(|series| *series == 0);
        if empty || result.is_err() {
            failures.push(format!("rule {}{}: {expression}: {result:?}", rule["record"], rule["alert"]));
        }
    }
    for (title, expression) in monitoring.panels() {
        match server.query(&expression) {
            Ok(series) if series > 0 || is_empty_when_healthy(&expression) => {}
            result => failures.push(format!("panel {title}: {expression}: {result:?}")),
        }
    }
    Ok(failures)
}

/// Whether a panel shows only what is wrong.
fn is_empty_when_healthy(expression: &str) -> bool {
    expression.ends_with("== 0") || expression.ends_with("> 0") || expression.starts_with("ALERTS")
}

/// Serves metrics to everyone who connects, until the process ends. Returns the address.
fn serve(text: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        for (scrape, connection) in (1..).zip(listener.incoming().flatten()) {
            // A scrape that is broken off is tried again.
            let _ = answer(&connection, &at(&text, scrape));
        }
    });
    Ok(address)
}

/// Returns the metrics of a scrape: counters and histograms grow with each one, so that rates are not zero.
fn at(text: &str, scrape: u32) -> String {
    let mut grows = false;
    let render = |line: &str| {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            grows = family.ends_with("counter") || family.ends_with("histogram");
        }
        let sample = line.rsplit_once(' ').filter(|_| grows && !line.starts_with('#'));
        match sample.and_then(|(series, value)| Some((series, value.parse::<f64>().ok()?))) {
            Some((series, value)) => format!("{series} {}\n", value * f64::from(scrape)),
            None => format!("{line}\n"),
        }
    };
    text.lines().map(render).collect()
}

fn answer(mut connection: &TcpStream, text: &str) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut lines = BufReader::new(connection).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
    write!(connection, "{head}Content-Length: {}\r\n\r\n{text}", text.len())
}

/// A running Prometheus, which ends with this value.
struct Prometheus {
    process: Child,
    promtool: std::path::PathBuf,
    url: String,
}

impl Prometheus {
    fn start(programs: &Path, config: &Path, folder: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut start = Command::new(programs.join("prometheus"));
        start.arg(format!("--config.file={}", config.display()));
        start.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        start.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let log = fs::File::create(folder.join("prometheus.log"))?;
        let process = start.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let process = process.with_context(|| command::start_failure(&start))?;
        Ok(Self { process, promtool: programs.join("promtool"), url: format!("http://127.0.0.1:{port}") })
    }

    /// Waits until the last of the recording rules has a value: rates need two scrapes.
    fn wait_for_data(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let last =
                ["mcp_fleet:budget_forecast:ratio", "mcp_fleet:refusals:rate5m", "mcp_fleet:duration_seconds:p99_5m"];
            if last.iter().all(|name| self.query(name).is_ok_and(|series| series > 0)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(200));
        }
        bail!("Prometheus has no data after {} s; see prometheus.log in the cache folder monitoring", LIMIT.as_secs())
    }

    /// Runs an instant query. Returns the number of series.
    fn query(&self, expression: &str) -> Result<usize> {
        let mut query = Command::new(&self.promtool);
        query.args(["query", "instant", "-o", "json", &self.url, expression]);
        let answer: Value = serde_json::from_str(&command::output(&mut query)?)?;
        Ok(answer.as_array().map_or(1, Vec::len))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It only fails if the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
