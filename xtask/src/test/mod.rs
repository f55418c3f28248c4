//! `cargo xtask test [PART]`: runs the tests in parts, fastest first, and shows the output of each part's own test
//! runner.
//!
//! All parts run even if an earlier one fails, so that one run shows every failure. The exit code is 0 only if every
//! part passed.

pub mod charts;
mod clients;
mod monitoring;
mod ocsf;
mod on_cluster;
mod on_host;
mod servers;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::cluster::With;

/// `cargo xtask test …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run only this part; by default, every part except the slow ones.
    part: Option<Part>,
    /// Also run the slow parts.
    #[arg(long, conflicts_with = "part")]
    all: bool,
    /// How to run the clusters of the tests; by default on the packaged node where it can run.
    #[arg(long, value_enum)]
    with: Option<With>,
}

/// One part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Formatting, clippy, and whether the committed generated files are up to date.
    Lint,
    /// Unit, property and snapshot tests, and tests of the data plane on loopback.
    Unit,
    /// Vet and tests of the Go programs of the local cluster.
    Tools,
    /// Official MCP clients in Python, TypeScript, Go and Rust, against a gateway on loopback.
    Clients,
    /// The Helm charts, linted and rendered with helm, and what they grant.
    Charts,
    /// Alerts, recording rules and dashboards of the chart, with promtool and a real Prometheus.
    Monitoring,
    /// Exported audit events, against the published schema of OCSF.
    Ocsf,
    /// `mcp-fleet try` with its example, in real processes on this machine.
    Try,
    /// The API and the controllers, against a real API server.
    Api,
    /// The demo and then the fault tests, on a real cluster.
    E2e,
    /// Slow: frameworks for agents, the Java SDK and the MCP Inspector, against a gateway on loopback.
    MoreClients,
    /// Slow: sessions on published MCP servers, directly and in the sandbox behind a gateway on loopback.
    Servers,
    /// Slow: calls of ten minutes by the official MCP clients, directly and through HAProxy.
    LongCalls,
    /// Slow: this version with the operator, the gateways and the shims of an earlier commit, on a real cluster.
    Upgrade,
    /// Slow: 200 rounds of random faults while a budget is spent, on a real cluster.
    Rounds,
    /// Slow: the demo on kind, with a docker engine and a node image from packages.
    Kind,
    /// Slow: the longer runs of the ledger's model, and its random fault rounds in virtual time.
    Governors,
    /// Slow: licences, sources and bans of all dependencies, checked with cargo-deny.
    Supply,
    /// Slow: the benchmark of the gateway, in its quick form.
    Bench,
}

impl Part {
    const fn is_slow(self) -> bool {
        matches!(
            self,
            Self::MoreClients
                | Self::Servers
                | Self::LongCalls
                | Self::Upgrade
                | Self::Rounds
                | Self::Kind
                | Self::Governors
                | Self::Supply
                | Self::Bench
        )
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns what the part covers, as `--help` describes it.
    fn help(self) -> String {
        self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    fn run(self, with: Option<With>) -> Result<()> {
        match self {
            Self::Lint => on_host::lint(),
            Self::Unit => on_host::unit(),
            Self::Tools => on_host::tools(),
            Self::Clients => clients::run(),
            Self::Charts => charts::run(),
            Self::Monitoring => monitoring::run(),
            Self::Ocsf => ocsf::run(),
            Self::Try => on_host::fleet_on_this_machine(),
            Self::Api => on_cluster::api(),
            Self::E2e => on_cluster::end_to_end(with),
            Self::MoreClients => clients::more(),
            Self::Servers => servers::run(),
            Self::LongCalls => clients::long_calls(),
            Self::Upgrade => on_cluster::upgrade(with),
            Self::Rounds => on_cluster::rounds(with),
            Self::Kind => on_cluster::kind(),
            Self::Governors => on_host::governors(),
            Self::Supply => on_host::supply(),
            Self::Bench => on_host::bench(),
        }
    }
}

/// Runs the selected parts and prints a summary. Fails if a part failed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = |part: &Part| arguments.part.map_or(arguments.all || !part.is_slow(), |only| only == *part);
    let (chosen, skipped): (Vec<_>, Vec<_>) = Part::value_variants().iter().copied().partition(chosen);
    let mut outcomes = Vec::new();
    for part in chosen {
        println!("\n=== {} ===\n{}", part.name(), part.help());
        let start = Instant::now();
        let result = part.run(arguments.with);
        if let Err(error) = &result {
            println!("error: {error:#}");
        }
        outcomes.push((part, result.is_ok(), start.elapsed()));
    }
    println!("\n=== summary ===");
    for (part, passed, took) in &outcomes {
        let mark = if *passed { "passed" } else { "FAILED" };
        println!("{mark}  {:<10} {:>6.1} s", part.name(), took.as_secs_f32());
    }
    if arguments.part.is_none() && !skipped.is_empty() {
        let names: Vec<_> = skipped.iter().map(|part| part.name()).collect();
        println!("slow parts not run: {} (`cargo xtask test --all` runs them too)", names.join(", "));
    }
    let failed = outcomes.iter().filter(|(_, passed, _)| !passed).count();
    println!("parts: {} passed, {failed} failed", outcomes.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} parts failed", outcomes.len());
    }
    Ok(())
}
