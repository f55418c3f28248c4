//! `cargo xtask test [PART]`: every test, cheapest first, each by its own runner, whose closing lines are printed.
//!
//! A part that fails does not keep the later ones from running, so that one run tells all; the exit code says whether
//! every part passed.

mod on_cluster;
mod on_host;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

/// `cargo xtask test …`
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only this part; without it, all but the long ones.
    part: Option<Part>,
    /// The long ones as well.
    #[arg(long, conflicts_with = "part")]
    all: bool,
}

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Formatting, clippy, and that what is generated from the code is what is committed.
    Lint,
    /// Unit, property and snapshot tests, and the data plane on loopback.
    Unit,
    /// The tests of the local cluster's own programs.
    Tools,
    /// The charts, with real helm.
    Charts,
    /// The API and the controllers against a real API server.
    Api,
    /// The demo, then the faults, on a real node.
    E2e,
    /// Long: licences, sources and bans of all dependencies, with cargo-deny.
    Supply,
    /// Long: the gateway's benchmark in its quick form.
    Bench,
}

impl Part {
    const fn is_long(self) -> bool {
        matches!(self, Self::Supply | Self::Bench)
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Lint => on_host::lint(),
            Self::Unit => on_host::unit(),
            Self::Tools => on_host::tools(),
            Self::Charts => on_host::charts(),
            Self::Api => on_cluster::api(),
            Self::E2e => on_cluster::end_to_end(),
            Self::Supply => on_host::supply(),
            Self::Bench => on_host::bench(),
        }
    }
}

/// Runs the parts that were asked for.
pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = |part: &Part| arguments.part.map_or(arguments.all || !part.is_long(), |only| only == *part);
    let (chosen, left_out): (Vec<_>, Vec<_>) = Part::value_variants().iter().copied().partition(chosen);
    let mut outcomes = Vec::new();
    for part in chosen {
        println!("\n=== {} ===", part.name());
        let start = Instant::now();
        let result = part.run();
        if let Err(error) = &result {
            println!("{error:#}");
        }
        outcomes.push((part, result.is_ok(), start.elapsed()));
    }
    println!("\n=== summary ===");
    for (part, passed, took) in &outcomes {
        let mark = if *passed { "passed" } else { "FAILED" };
        println!("{mark}  {:<7} {:>6.1} s", part.name(), took.as_secs_f32());
    }
    if arguments.part.is_none() && !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(|part| part.name()).collect();
        println!("left out, because they take long: {} (`cargo xtask test --all` runs them)", names.join(", "));
    }
    let failed = outcomes.iter().filter(|(_, passed, _)| !passed).count();
    println!("parts: {} passed, {failed} failed", outcomes.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} parts failed", outcomes.len());
    }
    Ok(())
}
