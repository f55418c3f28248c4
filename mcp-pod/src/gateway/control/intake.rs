//! Which policies come into force: whole ones only, and never one below the floor.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_fleet_control::codec::{DecodeError, Digest};
use mcp_fleet_control::{decode, encode, wire};
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::Mutex;

use crate::gateway::policy::InstallError;
use crate::gateway::state::State;

/// Takes policies and proofs of freshness, from the stream and from the mounted snapshot.
#[derive(Debug)]
pub(super) struct Intake {
    state: Arc<State>,
    floor: AtomicU64,
    /// Generation and digest of what is enforced; its lock makes one installation of two racing ones wait.
    enforced: Mutex<Option<(u64, Digest)>>,
}

/// Why a pushed policy was refused; its text goes to the operator.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("failed to check the policy: its bytes do not have the digest that came with them")]
    Digest,
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("failed to check the policy: it says generation {inside}, its message {outside}")]
    Generation { inside: u64, outside: u64 },
    #[error("failed to install generation {offered}: the mounted snapshot says {floor}")]
    BelowFloor { offered: u64, floor: u64 },
    #[error("failed to install generation {0}: another policy of this generation is in force")]
    Changed(u64),
    #[error(transparent)]
    Install(#[from] InstallError),
}

impl Intake {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, floor: AtomicU64::new(0), enforced: Mutex::new(None) }
    }

    /// The lowest generation that may be enforced.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    pub(super) fn raise_floor(&self, generation: u64) {
        self.floor.fetch_max(generation, Ordering::AcqRel);
    }

    /// Generation and digest of what is enforced now; 0 and nothing if there is no policy.
    pub(super) fn enforced(&self) -> (u64, Vec<u8>) {
        self.enforced.lock().map_or_else(|| (0, Vec::new()), |(generation, digest)| (generation, digest.to_vec()))
    }

    /// Takes a pushed policy, or keeps the one before, and says which in the answer.
    pub(super) fn push(&self, push: &wire::PolicyPush) -> wire::PolicyAck {
        let generation = push.generation;
        match self.take(push) {
            Ok(digest) => {
                tracing::info!(generation, %digest, "policy in force");
                wire::PolicyAck { generation, digest: digest.to_vec(), error: String::new() }
            }
            Err(refusal) => {
                let error = chain(&refusal);
                tracing::error!(generation, error, "policy refused; the one before stays in force");
                wire::PolicyAck { generation, digest: Vec::new(), error }
            }
        }
    }

    fn take(&self, push: &wire::PolicyPush) -> Result<Digest, Refusal> {
        if Some(Digest::of(&push.policy)) != Digest::from_slice(&push.digest) {
            return Err(Refusal::Digest);
        }
        let policy = decode(&push.policy)?;
        if policy.generation != push.generation {
            return Err(Refusal::Generation { inside: policy.generation, outside: push.generation });
        }
        // The digest of what was understood, not of what came in.
        let digest = encode(&policy).digest;
        self.install(policy, digest)?;
        Ok(digest)
    }

    /// Takes the policy of the mounted snapshot. It is not fresh: that only the stream can say.
    pub(super) fn install_mounted(&self, policy: TenantPolicy, digest: Digest) {
        let generation = policy.generation;
        if generation <= self.state.generation() {
            return;
        }
        match self.install(policy, digest) {
            Ok(()) => tracing::info!(generation, "mounted policy in force, stale until the operator is reached"),
            Err(refusal) => tracing::error!(generation, error = chain(&refusal), "mounted policy refused"),
        }
    }

    fn install(&self, policy: TenantPolicy, digest: Digest) -> Result<(), Refusal> {
        let offered = policy.generation;
        let floor = self.floor();
        if offered < floor {
            return Err(Refusal::BelowFloor { offered, floor });
        }
        let mut enforced = self.enforced.lock();
        if let Some((generation, held)) = *enforced
            && generation == offered
        {
            return if held == digest { Ok(()) } else { Err(Refusal::Changed(offered)) };
        }
        self.state.install(policy)?;
        *enforced = Some((offered, digest));
        Ok(())
    }

    /// Takes the leader's proof that it is current.
    ///
    /// A leader that is current cannot be behind what it has published, so a proof below the floor is a stale
    /// leader's and proves nothing.
    pub(super) fn fresh(&self, proof: &wire::Freshness) {
        if proof.generation >= self.floor() {
            self.state.mark_fresh(proof.generation, Duration::from_millis(proof.age_ms.into()));
        }
    }
}

/// An error and all its sources, in one line.
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
