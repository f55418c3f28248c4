//! The gateway's side of the control stream: policy, freshness and leases from the operator's leader.
//!
//! Start with [`Control::run`], which keeps one stream open while the gateway runs. [`stream`] is one stream, [`dial`]
//! opens its connection, [`redial`] decides when to open the next. [`intake`] decides which policies come into force,
//! and [`mounted`] reads the snapshot that no policy may fall below. The stream also carries lease requests and spend
//! reports ([`super::budget`]), which [`message`] converts to the wire format, and what tool servers report about themselves
//! ([`server_reports`]).

mod dial;
mod intake;
mod message;
mod mounted;
mod redial;
mod server_reports;
mod stream;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::budget::Leases;
use super::state::State;
use dial::OperatorDialer;
use intake::Intake;
use redial::Redial;

/// How long a call waits for a lease.
const LEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time that a gateway waits at its end for the operator to acknowledge the last spend reports.
const FINAL_REPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the last message may take to be sent.
const FLUSH_TIME: Duration = Duration::from_millis(100);
/// How often the mounted snapshot is checked. The kubelet takes a minute or more to mount a new one.
const MOUNT_POLL_PERIOD: Duration = Duration::from_secs(5);

/// How the gateway reaches the operator, and the files it reads.
#[derive(Clone, Debug, clap::Args)]
// The group of flattened arguments needs a unique name.
#[group(id = "control")]
pub struct Args {
    /// Address of the operator's control endpoint: an IP address and a port, because a gateway has no DNS.
    #[arg(long)]
    pub operator_address: SocketAddr,
    /// Name that the operator's certificate must have.
    #[arg(long, default_value = "mcp-fleet-operator.mcp-fleet-system.svc")]
    pub operator_name: String,
    /// Projected token of this pod, read again for each connection.
    #[arg(long, default_value = "/var/run/mcp-fleet/token/token")]
    pub token_file: PathBuf,
    /// Directory of the mounted policy snapshot.
    #[arg(long, default_value = "/var/run/mcp-fleet/policy")]
    pub policy_dir: PathBuf,
}

/// The control stream of a gateway, and the state that outlives one stream.
#[derive(Debug)]
pub struct Control {
    dialer: OperatorDialer,
    policy_dir: PathBuf,
    leases: Arc<Leases>,
}

impl Control {
    /// Prepares the control stream without reading any file. `ca_file` contains the CA of the operator's certificate
    /// in PEM.
    pub fn new(args: &Args, ca_file: &Path) -> Self {
        let Args { operator_address, operator_name, token_file, policy_dir } = args.clone();
        Self {
            dialer: OperatorDialer {
                address: operator_address,
                name: operator_name,
                token_file,
                ca_file: ca_file.into(),
            },
            policy_dir,
            leases: Leases::new(LEASE_TIMEOUT),
        }
    }

    /// Returns the leases that calls are paid from.
    pub fn leases(&self) -> Arc<Leases> {
        Arc::clone(&self.leases)
    }

    /// Keeps policy, freshness and leases of `state` up to date until `shutdown`. Then returns the leases, reports the last
    /// audit line and ends, within [`FINAL_REPORT_TIMEOUT`].
    pub async fn run(self, state: Arc<State>, shutdown: CancellationToken) {
        let intake = Intake::new(state);
        mounted::load(&self.policy_dir, &intake).await;
        tokio::select! {
            () = self.stay_connected(&intake) => {}
            () = self.watch_mount(&intake) => {}
            () = self.finish(&intake, &shutdown) => {}
        }
    }

    async fn stay_connected(&self, intake: &Intake) {
        let mut redial = Redial::new();
        loop {
            let end = stream::run(&self.dialer, intake, &self.leases, || redial.connected()).await;
            let delay = redial.after(&end);
            tokio::time::sleep(delay).await;
        }
    }

    async fn watch_mount(&self, intake: &Intake) {
        loop {
            tokio::time::sleep(MOUNT_POLL_PERIOD).await;
            mounted::load(&self.policy_dir, intake).await;
        }
    }

    /// Waits for the shutdown, then returns the leases and reports the last audit line.
    async fn finish(&self, intake: &Intake, shutdown: &CancellationToken) {
        shutdown.cancelled().await;
        // The leader then need not wait for the end of the lease before it lets another gateway admit calls.
        intake.release_homes();
        self.leases.close();
        let finished = async {
            self.leases.returned().await;
            intake.reported().await;
            // Unlike a report, an audit line is not acknowledged.
            tokio::time::sleep(FLUSH_TIME).await;
        };
        if tokio::time::timeout(FINAL_REPORT_TIMEOUT, finished).await.is_err() {
            tracing::warn!(
                "the operator did not receive the last reports in time; the rest of the leases is forfeited"
            );
        }
    }
}
