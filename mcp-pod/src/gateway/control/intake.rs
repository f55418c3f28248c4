//! The decision which policies come into force: only complete ones, and none below the floor.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_fleet_audit::Head;
use mcp_fleet_control::codec::{DecodeError, Digest};
use mcp_fleet_control::{DecodedPolicy, decode, homes, wire};
use mcp_fleet_homes::view::Member;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::gateway::policy::InstallError;
use crate::gateway::state::{LoopReport, State, StuckReport};
use crate::gateway::upstream::{ReportDigest, SeenReport};
use crate::tls::Served;

/// Installs policies from the control stream and the mounted snapshot, and accepts proofs of freshness.
#[derive(Debug)]
pub(super) struct Intake {
    state: Arc<State>,
    /// Lowest generation that may be enforced.
    floor: AtomicU64,
    /// Generation and identity of the enforced policy: its digest in the shared form, whichever it was received in. Locked
    /// during an installation, so that there is one at a time.
    enforced: Mutex<Option<(u64, Digest)>>,
    /// Set once the last audit line of a process that ends was reported.
    reported: watch::Sender<bool>,
    /// The turn to read a kept report: decompressed, one may have 4 MiB.
    report_turn: Arc<Semaphore>,
}

/// Why a policy was not accepted. The text is sent to the operator.
#[derive(Debug, thiserror::Error)]
enum PolicyRejection {
    #[error("failed to verify the policy: its digest does not match its bytes")]
    Digest,
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("failed to verify the policy: its generation is {inside}, but its message says {outside}")]
    Generation { inside: u64, outside: u64 },
    #[error("failed to install generation {offered}: the mounted snapshot has generation {floor}")]
    BelowFloor { offered: u64, floor: u64 },
    #[error("failed to install generation {0}: another policy of this generation is in force")]
    Changed(u64),
    #[error(transparent)]
    Install(#[from] InstallError),
}

impl Intake {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            floor: AtomicU64::new(0),
            enforced: Mutex::new(None),
            reported: watch::Sender::new(false),
            report_turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Returns the last audit line that was written; none before the first.
    pub(super) fn audit_head(&self) -> Option<Head> {
        self.state.audit.head()
    }

    /// Records that the last audit line of this process was reported.
    pub(super) fn set_reported(&self) {
        self.reported.send_replace(true);
    }

    /// Waits until the last audit line was reported, if there is one.
    pub(super) async fn reported(&self) {
        if self.audit_head().is_some() {
            // The sender is a field of this object, so there is no error.
            let _ = self.reported.subscribe().wait_for(|reported| *reported).await;
        }
    }

    /// Returns the lowest generation that may be enforced.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Raises the floor to `generation`, if it is lower.
    pub(super) fn raise_floor(&self, generation: u64) {
        self.floor.fetch_max(generation, Ordering::AcqRel);
    }

    /// Returns generation and identity of the enforced policy, or 0 and an empty digest without a policy.
    pub(super) fn enforced(&self) -> (u64, Vec<u8>) {
        self.enforced.lock().map_or_else(|| (0, Vec::new()), |(generation, digest)| (generation, digest.to_vec()))
    }

    /// Returns whether the gateway can be a home.
    pub(super) fn is_ready(&self) -> bool {
        self.state.ready()
    }

    /// Records that the gateway is connected to the leader of this term; 0 if the leader does not decide homes. Returns false
    /// if a later leader is known.
    pub(super) fn connect_leader(&self, term: u64, pod_uid: &str, epoch: &str) -> bool {
        if term == 0 {
            self.state.connect_earlier_leader();
            return true;
        }
        self.state.connect_leader(term, Member { pod_uid: pod_uid.into(), epoch: epoch.into() })
    }

    /// Returns the beat to send now, if the leader decides homes.
    pub(super) fn home_beat(&self, willing: bool) -> Option<wire::HomeBeat> {
        self.state.home_beat(willing).map(|(beat, usage)| homes::beat_to_wire(&beat, usage))
    }

    /// Waits until the leader has to get a beat at once.
    pub(super) async fn home_beat_due(&self) {
        self.state.homes.beat_due().await;
    }

    /// Does what the leader answers to a beat. Returns whether it should get the next beat at once.
    pub(super) fn handle_home_answer(&self, answer: wire::HomeAnswer) -> bool {
        let Some((answer, others)) = homes::answer_from_wire(answer) else { return false };
        self.state.receive_home_answer(answer, others)
    }

    /// Gives up the lease of homes, because the process ends.
    pub(super) fn release_homes(&self) {
        self.state.release_homes();
    }

    /// Returns the public names that are served.
    pub(super) fn served(&self) -> Arc<Served> {
        self.state.names.served()
    }

    /// Takes out the reports of stuck agents that the operator does not have yet.
    pub(super) fn take_stuck_reports(&self) -> Vec<StuckReport> {
        self.state.stuck_reports.take()
    }

    /// Takes out the reports of refused loops that the operator does not have yet.
    pub(super) fn take_loop_reports(&self) -> Vec<LoopReport> {
        self.state.loop_reports.take()
    }

    /// Returns a report of a server that the operator should keep, with the server's UID. `kept` are the digests of those that
    /// it keeps.
    pub(super) fn take_report_to_keep(
        &self,
        kept: &HashMap<String, ReportDigest>,
        now: Instant,
    ) -> Option<(String, SeenReport)> {
        self.state.take_report_to_keep(kept, now)
    }

    /// Returns the UIDs of the servers of which nothing is known beyond their catalogue.
    pub(super) fn servers_without_report(&self) -> Vec<String> {
        self.state.servers_without_report()
    }

    /// Uses a report that the operator kept. It is read elsewhere, because a tool server may have made that expensive.
    pub(super) fn handle_kept_report(&self, kept: wire::KeptServerReport) {
        let (state, turn) = (Arc::clone(&self.state), Arc::clone(&self.report_turn));
        tokio::spawn(async move {
            let _turn = turn.acquire_owned().await;
            let read = tokio::task::spawn_blocking(move || {
                let wire::KeptServerReport { server_uid, digest, report } = kept;
                if let Err(error) = state.use_kept_report(&server_uid, &digest, &report) {
                    tracing::warn!(server_uid, error = chain(&error), "the kept report of a server is not used");
                }
            });
            if let Err(error) = read.await {
                tracing::error!(%error, "failed to read the kept report of a server");
            }
        });
    }

    /// Installs a pushed policy, or keeps the previous one. Returns the answer to the operator.
    pub(super) fn handle_push(&self, push: &wire::PolicyPush) -> wire::PolicyAck {
        let generation = push.generation;
        match self.install_pushed(push) {
            Ok(digest) => {
                tracing::info!(generation, %digest, "policy in force");
                wire::PolicyAck { generation, digest: digest.to_vec(), error: String::new() }
            }
            Err(rejection) => {
                let error = chain(&rejection);
                tracing::error!(generation, error, "policy rejected; the previous one stays in force");
                wire::PolicyAck { generation, digest: Vec::new(), error }
            }
        }
    }

    fn install_pushed(&self, push: &wire::PolicyPush) -> Result<Digest, PolicyRejection> {
        if Some(Digest::of(&push.policy)) != Digest::from_slice(&push.digest) {
            return Err(PolicyRejection::Digest);
        }
        let decoded = decode(&push.policy)?;
        let inside = decoded.policy.generation;
        if inside != push.generation {
            return Err(PolicyRejection::Generation { inside, outside: push.generation });
        }
        // The digest of the policy as it was understood, not of the bytes that were received.
        let digest = decoded.digest;
        self.install(decoded)?;
        Ok(digest)
    }

    /// Installs the policy of the mounted snapshot. It is not fresh until the control stream brings a proof.
    pub(super) fn install_mounted(&self, decoded: DecodedPolicy) {
        let generation = decoded.policy.generation;
        if generation <= self.state.generation() {
            return;
        }
        match self.install(decoded) {
            Ok(()) => tracing::info!(generation, "mounted policy in force, stale until the operator is reached"),
            Err(rejection) => tracing::error!(generation, error = chain(&rejection), "mounted policy rejected"),
        }
    }

    fn install(&self, decoded: DecodedPolicy) -> Result<(), PolicyRejection> {
        let offered = decoded.policy.generation;
        let floor = self.floor();
        if offered < floor {
            return Err(PolicyRejection::BelowFloor { offered, floor });
        }
        let mut enforced = self.enforced.lock();
        if let Some((generation, current)) = *enforced
            && generation == offered
        {
            return if current == decoded.identity() { Ok(()) } else { Err(PolicyRejection::Changed(offered)) };
        }
        let identity = decoded.identity();
        self.state.install(decoded.policy)?;
        *enforced = Some((offered, identity));
        Ok(())
    }

    /// Accepts the leader's proof that a generation is current.
    ///
    /// The current leader cannot be behind the snapshot it has published. So a proof below the floor comes from a stale
    /// leader and is ignored.
    pub(super) fn handle_proof(&self, proof: &wire::Freshness) {
        // First, so that there is no moment at which calls pass.
        if let Some(switch) = &proof.kill_switch {
            self.handle_kill_switch(switch);
        }
        if proof.generation >= self.floor() {
            self.state.mark_fresh(proof.generation, Duration::from_millis(proof.age_ms.into()));
        }
    }

    /// Puts the state of the fleet's kill switch into force.
    pub(super) fn handle_kill_switch(&self, switch: &wire::KillSwitch) {
        let wire::KillSwitch { stop, reason, age_ms } = switch;
        self.state.set_kill_switch(Duration::from_millis((*age_ms).into()), stop.then_some(reason.as_str()));
    }
}

/// Returns an error and all its sources in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
