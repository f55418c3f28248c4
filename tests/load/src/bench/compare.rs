//! The interleaved rounds: in each, every cell is measured on every path, one after the other, so that whatever else
//! the machine does falls on all of them alike.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Plan;
use super::stage::Stage;
use crate::load::{Client, LARGE, SMALL, Slot, Target, run as measure};
use crate::process::Process;

/// Connections of the wide cells.
pub(crate) const WIDE: usize = 32;

/// How a call reaches the tool server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    /// Without anything in between.
    Direct,
    /// Through a proxy that looks at nothing.
    PassThrough,
    /// Through the gateway with full policy.
    Gateway,
}

impl Path {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::PassThrough, Self::Gateway];
}

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// Whether there is no TLS, on either side.
    pub(crate) plain: bool,
    /// Connections that call at the same time.
    pub(crate) connections: usize,
    /// Bytes of text in argument and result.
    pub(crate) size: usize,
}

/// One measurement's figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Median duration of a call.
    pub(crate) p50: Duration,
    /// 99th percentile.
    pub(crate) p99: Duration,
    /// Calls in a second.
    pub(crate) rate: f64,
    /// CPU of the measured process for one call, in microseconds.
    pub(crate) cpu: f64,
    /// Its resident memory, in bytes.
    pub(crate) resident: u64,
}

/// All measurements, by cell and path.
pub(crate) type Table = BTreeMap<(Cell, Path), Vec<Figures>>;

/// Open connections, by wire and path.
type Clients = BTreeMap<(bool, Path), Vec<Client>>;

pub(crate) async fn run(stage: &mut Stage, plan: Plan, progress: impl Fn(&str)) -> anyhow::Result<Table> {
    let mut clients = connect(stage).await?;
    let mut table = Table::new();
    let cells: Vec<Cell> = [false, true]
        .into_iter()
        .flat_map(|plain| [1, WIDE].map(|connections| (plain, connections)))
        .flat_map(|(plain, connections)| [SMALL, LARGE].map(|size| Cell { plain, connections, size }))
        .collect();
    // A round that nobody counts: connections to the upstream, leases, caches and the allocator settle.
    round(stage, &mut clients, &cells, 0, plan.slot / 4, &mut Table::new()).await?;
    for number in 1..=plan.rounds {
        progress(&format!("round {number} of {}", plan.rounds));
        round(stage, &mut clients, &cells, number, plan.slot, &mut table).await?;
    }
    Ok(table)
}

async fn round(
    stage: &mut Stage,
    clients: &mut Clients,
    cells: &[Cell],
    number: usize,
    length: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    for cell in cells {
        // Each path is first in a third of the rounds.
        for turn in 0..Path::ALL.len() {
            let path = Path::ALL[(number + turn) % Path::ALL.len()];
            let Some(clients) = clients.get_mut(&(cell.plain, path)) else { continue };
            let before = process(stage, path, cell.plain).cpu()?;
            let slot = measure(&mut clients[..cell.connections], cell.size, length).await?;
            let process = process(stage, path, cell.plain);
            let figures = figures(&slot, process.cpu()?.saturating_sub(before), process.resident()?);
            if path == Path::Gateway {
                stage.calls += slot.calls.len() as u64;
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

fn process(stage: &Stage, path: Path, plain: bool) -> &Process {
    match (path, plain) {
        (Path::Direct, _) => &stage.upstream,
        (Path::PassThrough, _) => &stage.pass_through,
        (Path::Gateway, false) => &stage.gateway.process,
        (Path::Gateway, true) => &stage.plain_gateway.process,
    }
}

/// Opens all connections. All of them carry a session of the gateway, so that every path gets the same bytes.
async fn connect(stage: &Stage) -> anyhow::Result<Clients> {
    let mut clients = Clients::new();
    for plain in [false, true] {
        let gateway = if plain { &stage.plain_gateway } else { &stage.gateway };
        let target = stage.target(gateway.address, !plain);
        let mut opener = Client::connect(&target).await?;
        opener.open_session().await?;
        let session = opener.session();
        let targets: [(Path, Target); 3] =
            [(Path::Direct, stage.direct(!plain)), (Path::PassThrough, stage.through(!plain)), (Path::Gateway, target)];
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
