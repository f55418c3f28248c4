//! The interleaved rounds. Each round measures every kind of load on every path, one after the other, so that other
//! work on the machine affects all paths alike.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Plan;
use super::testbed::Testbed;
use crate::load::{Client, LARGE, SMALL, Slot, Target, run as measure};
use crate::process::Process;

/// Number of connections in the loads with many connections.
pub(crate) const WIDE: usize = 32;

/// How a call reaches the tool server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    /// Directly, with nothing in between.
    Direct,
    /// Through a proxy that forwards everything unchecked.
    PassThrough,
    /// Through the gateway with a full policy.
    Gateway,
}

impl Path {
    /// All paths, in the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::PassThrough, Self::Gateway];
}

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// Whether both sides of the path are without TLS.
    pub(crate) plain: bool,
    /// Number of connections that call at the same time.
    pub(crate) connections: usize,
    /// Bytes of text in the argument and in the result.
    pub(crate) size: usize,
}

/// Figures of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Median duration of a call.
    pub(crate) p50: Duration,
    /// 99th percentile of the duration of a call.
    pub(crate) p99: Duration,
    /// Calls per second.
    pub(crate) rate: f64,
    /// CPU time of the measured process per call, in microseconds.
    pub(crate) cpu: f64,
    /// Resident memory of the measured process, in bytes.
    pub(crate) resident: u64,
}

/// All measurements, by cell and path.
pub(crate) type Table = BTreeMap<(Cell, Path), Vec<Figures>>;

/// Open connections, by absence of TLS and by path.
type Clients = BTreeMap<(bool, Path), Vec<Client>>;

/// Runs all rounds, and returns their measurements.
pub(crate) async fn run(testbed: &mut Testbed, plan: Plan, progress: impl Fn(&str)) -> anyhow::Result<Table> {
    let mut clients = connect(testbed).await?;
    let mut table = Table::new();
    let cells: Vec<Cell> = [false, true]
        .into_iter()
        .flat_map(|plain| [1, WIDE].map(|connections| (plain, connections)))
        .flat_map(|(plain, connections)| [SMALL, LARGE].map(|size| Cell { plain, connections, size }))
        .collect();
    // Warm-up round, not counted: opens connections to the upstream, obtains leases, and fills caches.
    round(testbed, &mut clients, &cells, 0, plan.slot / 4, &mut Table::new()).await?;
    for number in 1..=plan.rounds {
        progress(&format!("round {number} of {}", plan.rounds));
        round(testbed, &mut clients, &cells, number, plan.slot, &mut table).await?;
    }
    Ok(table)
}

async fn round(
    testbed: &mut Testbed,
    clients: &mut Clients,
    cells: &[Cell],
    number: usize,
    length: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    for cell in cells {
        // Rotate the order, so that each path is first in a third of the rounds.
        for turn in 0..Path::ALL.len() {
            let path = Path::ALL[(number + turn) % Path::ALL.len()];
            let Some(clients) = clients.get_mut(&(cell.plain, path)) else { continue };
            let before = process(testbed, path, cell.plain).cpu()?;
            let slot = measure(&mut clients[..cell.connections], cell.size, length).await?;
            let process = process(testbed, path, cell.plain);
            let figures = figures(&slot, process.cpu()?.saturating_sub(before), process.resident()?);
            if path == Path::Gateway {
                testbed.calls += slot.calls.len() as u64;
            }
            table.entry((*cell, path)).or_default().push(figures);
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
fn figures(slot: &Slot, cpu: Duration, resident: u64) -> Figures {
    let calls = slot.calls.len().max(1) as f64;
    Figures {
        p50: slot.quantile(0.5),
        p99: slot.quantile(0.99),
        rate: calls / slot.elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / calls,
        resident,
    }
}

fn process(testbed: &Testbed, path: Path, plain: bool) -> &Process {
    match (path, plain) {
        (Path::Direct, _) => &testbed.upstream,
        (Path::PassThrough, _) => &testbed.pass_through,
        (Path::Gateway, false) => &testbed.gateway.process,
        (Path::Gateway, true) => &testbed.plain_gateway.process,
    }
}

/// Opens all connections. All of them send a session ID of the gateway, so that every path gets the same bytes.
async fn connect(testbed: &Testbed) -> anyhow::Result<Clients> {
    let mut clients = Clients::new();
    for plain in [false, true] {
        let gateway = if plain { &testbed.plain_gateway } else { &testbed.gateway };
        let target = testbed.target(gateway.address, !plain);
        let mut opener = Client::connect(&target).await?;
        opener.open_session().await?;
        let session = opener.session();
        let targets: [(Path, Target); 3] = [
            (Path::Direct, testbed.direct(!plain)),
            (Path::PassThrough, testbed.through_proxy(!plain)),
            (Path::Gateway, target),
        ];
        for (path, target) in targets {
            let mut open = Vec::new();
            for _ in 0..WIDE {
                let mut client = Client::connect(&target).await?;
                session.clone().into_iter().for_each(|session| client.set_session(session));
                open.push(client);
            }
            clients.insert((plain, path), open);
        }
    }
    Ok(clients)
}
