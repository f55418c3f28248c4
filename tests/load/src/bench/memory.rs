//! Resident memory of a gateway: fresh, and after 10,000 calls in 1,000 sessions.

use bytes::Bytes;
use futures::future::try_join_all;

use super::stage::{Stage, wait_ready};
use crate::load::{Client, SMALL, Target, message};

const CONNECTIONS: usize = 32;
/// Sessions in all.
const SESSIONS: usize = 1_000;
const CALLS_PER_SESSION: usize = 10;

/// Bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Ready, before the first call.
    pub(crate) idle: u64,
    /// After the calls.
    pub(crate) after: u64,
}

pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Memory> {
    let mut gateway = stage.fresh_gateway().await?;
    wait_ready(&gateway).await?;
    let idle = gateway.process.resident()?;
    let target = stage.target(gateway.address, true);
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
