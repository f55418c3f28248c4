//! Resident memory of a new gateway, and of the same gateway after 10,000 calls in 1,000 sessions.

use bytes::Bytes;
use futures::future::try_join_all;

use super::testbed::{Testbed, wait_ready};
use crate::load::{Client, SMALL, Target, message};

const CONNECTIONS: usize = 32;
/// Number of sessions, over all connections.
const SESSIONS: usize = 1_000;
const CALLS_PER_SESSION: usize = 10;

/// Resident memory of a gateway, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// When ready, before the first call.
    pub(crate) idle: u64,
    /// After the calls.
    pub(crate) after: u64,
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
    Ok(Memory { idle, after: gateway.process.resident()? })
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
