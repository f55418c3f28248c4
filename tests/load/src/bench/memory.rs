//! Resident memory of a gateway: when it is new, after 10,000 calls in 1,000 sessions, and while calls wait for a tool
//! server that says nothing.

use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::Bytes;
use futures::future::{join_all, select, try_join_all};

use super::testbed::{Testbed, wait_ready};
use crate::load::{Client, SMALL, Target, message};

const CONNECTIONS: usize = 32;
/// Number of sessions, over all connections.
const SESSIONS: usize = 1_000;
const CALLS_PER_SESSION: usize = 10;

/// Calls that wait at the same time, each on a connection of its own.
const WAITING: usize = 100;
/// Time in which all of them have arrived, and the event streams among them have begun.
const SILENCE: Duration = Duration::from_secs(9);

/// Resident memory of a gateway, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// When ready, before the first call.
    pub(crate) idle: u64,
    /// After the calls.
    pub(crate) after: u64,
    /// What a waiting call costs whose client takes events, beyond one whose client does not; below 0 within the accuracy
    /// of the measurement.
    pub(crate) stream: i64,
}

/// Measures a new gateway before and after the calls.
pub(crate) async fn measure(testbed: &Testbed) -> anyhow::Result<Memory> {
    let mut gateway = testbed.new_gateway().await?;
    wait_ready(&gateway).await?;
    let idle = gateway.process.resident()?;
    let target = testbed.target(gateway.address, true);
    let share = |number: usize| SESSIONS / CONNECTIONS + usize::from(number < SESSIONS % CONNECTIONS);
    try_join_all((0..CONNECTIONS).map(|number| sessions(&target, share(number)))).await?;
    gateway.process.check("the gateway")?;
    let after = gateway.process.resident()?;
    drop(gateway);
    let (without, with) = (waiting(testbed, false).await?, waiting(testbed, true).await?);
    Ok(Memory { idle, after, stream: (with.cast_signed() - without.cast_signed()) / WAITING.cast_signed() as i64 })
}

/// Returns by how much a new gateway grows while calls wait.
async fn waiting(testbed: &Testbed, events: bool) -> anyhow::Result<u64> {
    let gateway = testbed.new_gateway().await?;
    wait_ready(&gateway).await?;
    let target = testbed.target(gateway.address, true);
    let mut clients = Vec::with_capacity(WAITING);
    for _ in 0..WAITING {
        let mut client = Client::connect(&target).await?;
        client.open_session().await?;
        if !events {
            client.take_no_events();
        }
        clients.push(client);
    }
    let before = gateway.process.resident()?;
    let body = Bytes::from(message::silent_call());
    let calls = join_all(clients.iter_mut().map(|client| client.wait(body.clone())));
    let silence = Box::pin(tokio::time::sleep(SILENCE));
    match select(calls, silence).await {
        futures::future::Either::Left((ended, _)) => bail!("the silent calls have ended: {:?}", ended.first()),
        futures::future::Either::Right(((), _)) => {}
    }
    let grown = gateway.process.resident()?.saturating_sub(before);
    ensure!(grown > 0, "nothing waits");
    Ok(grown)
}

async fn sessions(target: &Target, count: usize) -> anyhow::Result<()> {
    let body = Bytes::from(message::call(SMALL));
    let mut client = Client::connect(target).await?;
    for _ in 0..count {
        client.open_session().await?;
        for _ in 0..CALLS_PER_SESSION {
            client.call(body.clone()).await?;
        }
    }
    Ok(())
}
