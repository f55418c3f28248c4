//! The report, as Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use super::Plan;
use super::compare::{Cell, Figures, Path, Table, WIDE};
use super::memory::Memory;
use crate::load::{LARGE, SMALL};

/// All results.
#[derive(Debug)]
pub(crate) struct Report {
    /// How the results were measured.
    pub(crate) plan: Plan,
    /// Whether the processors could sleep, as a phrase.
    pub(crate) processors: &'static str,
    /// Results of the interleaved rounds.
    pub(crate) table: Table,
    /// Memory of a new gateway and after many sessions.
    pub(crate) memory: Memory,
    /// Times until ready, sorted.
    pub(crate) ready: Vec<Duration>,
    /// Size of the binary, in bytes.
    pub(crate) size: u64,
    /// Money that the gateways reported as spent, in millionths. Equal to the price of all calls.
    pub(crate) spent: u64,
}

/// Medians over the rounds.
#[derive(Clone, Copy, Debug)]
struct Row {
    p50: f64,
    p99: f64,
    rate: f64,
    cpu: f64,
    resident: f64,
}

/// Returns the report as Markdown.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    let Plan { rounds, slot, starts } = report.plan;
    let _ = writeln!(
        text,
        "# Gateway benchmark\n\n{}, {}; {rounds} interleaved rounds with {} ms per measurement, median over the \
         rounds.\n\n\
         Every path gets the same bytes over the same kind of connection (HTTP/1.1, revision 2025-11-25, one bearer \
         token, one session): a `tools/call` with the given amount of text in an argument, answered with as much \
         text. The load is a closed loop in a separate process on the same machine. CPU and memory are those of the \
         process that the row names.\n\n\
         - direct: the tool server, a hyper server with a fixed answer. CPU and memory are those of this server.\n\
         - pass-through: a hyper proxy that forwards everything unchecked to that server. CPU and memory are those \
         of the proxy.\n\
         - gateway: mcp-pod with a full policy (ES256 token, scope, three typed arguments checked against scope and \
         catalogue, rates and concurrency of principal, tenant and server, a budget of money and calls with leases \
         from an operator over TLS, audit lines to /dev/null, metrics) in front of the same server, which answers \
         as the shim does. CPU and memory are those of the gateway.\n\
         - With TLS: on both sides of proxy and gateway, and mutual towards the server. Without TLS: on neither \
         side; the gateway then runs behind a listener of the benchmark, which the product does not have.\n",
        machine(),
        report.processors,
        slot.as_millis(),
    );
    table(&mut text, &report.table);
    let mib = |bytes: u64| bytes_to_mib(bytes);
    let Memory { idle, after, stream: _ } = report.memory;
    let _ = writeln!(
        text,
        "\nMemory of a new gateway: {:.1} MiB when ready, {:.1} MiB after 10,000 calls in 1,000 sessions on 32 \
         connections. Time from exec until ready: median {:.0} ms, longest {:.0} ms of {starts} starts, with a \
         mounted policy and an operator on loopback. Binary: {:.1} MB. Money: {} millionths spent, equal to \
         calls × price.\n",
        mib(idle),
        mib(after),
        millis(median(&report.ready)),
        millis(report.ready.last().copied().unwrap_or_default()),
        bytes_to_mib(report.size) * 1.048_576,
        report.spent,
    );
    targets(&mut text, report);
    text
}

fn table(text: &mut String, table: &Table) {
    text.push_str(
        "| TLS | connections | text | path | p50 µs | p99 µs | calls/s | CPU µs/call | RSS MiB | p50 ÷ direct | \
         calls/s ÷ direct | CPU ÷ pass-through |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((cell, path), figures) in table {
        let Cell { plain, connections, size } = *cell;
        let row = row(figures);
        let of = |path| table.get(&(*cell, path)).map(|figures| self::row(figures));
        let (direct, pass) = (of(Path::Direct).unwrap_or(row), of(Path::PassThrough).unwrap_or(row));
        let cpu = if *path == Path::Gateway { format!("{:.2}", row.cpu / pass.cpu) } else { String::new() };
        let _ = writeln!(
            text,
            "| {} | {connections} | {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.2} | {:.2} | {cpu} |",
            if plain { "no" } else { "yes" },
            if size == SMALL { "200 B" } else { "32 KiB" },
            match path {
                Path::Direct => "direct",
                Path::PassThrough => "pass-through",
                Path::Gateway => "**gateway**",
            },
            row.p50,
            row.p99,
            row.rate,
            row.cpu,
            row.resident,
            row.p50 / direct.p50,
            row.rate / direct.rate,
        );
    }
}

/// Adds the table of targets, and whether this run met them.
fn targets(text: &mut String, report: &Report) {
    let row = |plain, connections, size, path| {
        report.table.get(&(Cell { plain, connections, size }, path)).map_or(NONE, |figures| row(figures))
    };
    text.push_str("| figure | target | measured | |\n|---|---|---|---|\n");
    let mut line = |what: &str, limit: f64, measured: f64, unit: &str| {
        let tick = if measured <= limit { "✓" } else { "✗" };
        let _ = writeln!(text, "| {what} | ≤ {limit} {unit} | {measured:.2} {unit} | {tick} |");
    };
    for (plain, wire) in [(false, "with TLS"), (true, "without TLS")] {
        for connections in [1, WIDE] {
            for (size, bytes) in [(SMALL, "200 B"), (LARGE, "32 KiB")] {
                let ratio = row(plain, connections, size, Path::Gateway).cpu
                    / row(plain, connections, size, Path::PassThrough).cpu;
                let plural = if connections == 1 { "" } else { "s" };
                let what = format!("CPU ÷ pass-through, {wire}, {connections} connection{plural}, {bytes}");
                line(&what, 1.5, ratio, "×");
            }
        }
    }
    let cpu = row(true, WIDE, SMALL, Path::Gateway).cpu;
    line("CPU per call, without TLS, 32 connections, 200 B", 75.0, cpu, "µs");
    for (size, bytes) in [(SMALL, "200 B"), (LARGE, "32 KiB")] {
        let (direct, gateway) = (row(false, 1, size, Path::Direct), row(false, 1, size, Path::Gateway));
        line(&format!("added p50, with TLS, 1 connection, {bytes}"), 100.0, gateway.p50 - direct.p50, "µs");
        line(&format!("added p99, with TLS, 1 connection, {bytes}"), 400.0, gateway.p99 - direct.p99, "µs");
    }
    line("resident after 10,000 calls in 1,000 sessions", 20.0, bytes_to_mib(report.memory.after), "MiB");
    line("idle event stream, beyond its call", 4.0, stream_kib(report.memory.stream), "KiB");
    line("ready after exec", 100.0, millis(median(&report.ready)), "ms");
}

const NONE: Row = Row { p50: f64::NAN, p99: f64::NAN, rate: f64::NAN, cpu: f64::NAN, resident: f64::NAN };

fn row(figures: &[Figures]) -> Row {
    let median = |pick: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Row {
        p50: median(|figures| figures.p50.as_secs_f64() * 1e6),
        p99: median(|figures| figures.p99.as_secs_f64() * 1e6),
        rate: median(|figures| figures.rate),
        cpu: median(|figures| figures.cpu),
        resident: median(|figures| bytes_to_mib(figures.resident)),
    }
}

fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[allow(clippy::cast_precision_loss, reason = "sizes of processes and files are far below 2^52 bytes")]
fn bytes_to_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[allow(clippy::cast_precision_loss, reason = "sizes of processes are far below 2^52 bytes")]
fn stream_kib(bytes: i64) -> f64 {
    bytes as f64 / 1024.0
}

/// Returns the number of cores and the model of the processor.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} × {}", model.unwrap_or("unknown processor"))
}
