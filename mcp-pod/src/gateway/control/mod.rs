//! The gateway's side of the control stream: policy, freshness and leases from the operator's leader.
//!
//! One task keeps one stream open for as long as the gateway runs ([`session`] is one stream, [`redial`] what lies
//! between two). [`intake`] decides which policies come into force, [`mounted`] reads the floor under them. The stream
//! also fills and accounts for the leases that calls are paid from ([`super::budget`]).

mod dial;
mod intake;
mod message;
mod mounted;
mod redial;
mod session;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::budget::Leases;
use super::state::State;
use dial::Dialler;
use intake::Intake;
use redial::Redial;

/// How long a gateway that goes away waits for the operator to take its last reports.
const CLOSING: Duration = Duration::from_secs(3);
/// How often the mounted snapshot is looked at; the kubelet takes a minute or more to bring a new one.
const MOUNT_POLL: Duration = Duration::from_secs(5);

/// Where the operator is, and what proves who we are.
#[derive(Clone, Debug, clap::Args)]
// Arguments that are flattened into others need a name of their own.
#[group(id = "control")]
pub struct Args {
    /// Address of the operator's control endpoint: an IP address and a port, because a gateway has no DNS.
    #[arg(long)]
    pub operator_address: SocketAddr,
    /// The name that the operator's certificate must carry.
    #[arg(long, default_value = "mcp-fleet-operator.mcp-fleet-system.svc")]
    pub operator_name: String,
    /// The projected token of this pod, read again at each dial.
    #[arg(long, default_value = "/var/run/mcp-fleet/token/token")]
    pub token_file: PathBuf,
    /// The mounted snapshot of the policy.
    #[arg(long, default_value = "/var/run/mcp-fleet/policy")]
    pub policy_dir: PathBuf,
}

/// The control part of a gateway.
#[derive(Debug)]
pub struct Control {
    dialler: Dialler,
    policy_dir: PathBuf,
    leases: Arc<Leases>,
}

impl Control {
    /// Reads nothing yet; `ca_file` holds the CA that signs the operator's certificate, in PEM.
    pub fn new(args: &Args, ca_file: &Path) -> Self {
        let Args { operator_address, operator_name, token_file, policy_dir } = args.clone();
        Self {
            dialler: Dialler { address: operator_address, name: operator_name, token_file, ca_file: ca_file.into() },
            policy_dir,
            leases: Leases::new(),
        }
    }

    /// Returns the leases that calls are paid from.
    pub fn leases(&self) -> Arc<Leases> {
        Arc::clone(&self.leases)
    }

    /// Keeps `state` supplied until `shutdown`, then returns the leases and ends, within three seconds.
    pub async fn run(self, state: Arc<State>, shutdown: CancellationToken) {
        let intake = Intake::new(state);
        mounted::read(&self.policy_dir, &intake).await;
        tokio::select! {
            () = self.stay_connected(&intake) => {}
            () = self.watch_mount(&intake) => {}
            () = self.closing(&shutdown) => {}
        }
    }

    async fn stay_connected(&self, intake: &Intake) {
        let mut redial = Redial::new();
        loop {
            let end = session::run(&self.dialler, intake, &self.leases, || redial.connected()).await;
            let delay = redial.after(&end);
            tokio::time::sleep(delay).await;
        }
    }

    async fn watch_mount(&self, intake: &Intake) {
        loop {
            tokio::time::sleep(MOUNT_POLL).await;
            mounted::read(&self.policy_dir, intake).await;
        }
    }

    async fn closing(&self, shutdown: &CancellationToken) {
        shutdown.cancelled().await;
        self.leases.close();
        if tokio::time::timeout(CLOSING, self.leases.returned()).await.is_err() {
            tracing::warn!("ending without an answer to the last reports: what the leases had left is forfeited");
        }
    }
}
