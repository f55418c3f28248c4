//! What gateways and the leader tell each other.

use crate::view::{Member, View};

/// What a gateway tells the leader of its term, about once a second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Beat {
    /// Term of the leader that the gateway is connected to. Another leader ignores the beat.
    pub term: u64,
    /// Number of the beat, increasing within a process.
    pub number: u64,
    /// Number of the last beat of this term whose answer the gateway has accepted; 0 for none.
    pub accepted: u64,
    /// What the gateway admits calls by; none if its lease has ended, or it never had one.
    pub held: Option<Held>,
    /// Whether the gateway can be a home: it has a policy, and does not drain.
    pub willing: bool,
}

/// What a gateway admits calls by. It admits those of the principals whose home it is in each of these views.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// The view that the gateway was told to apply last.
    pub active: View,
    /// Later views that the gateway was told to prepare for, in order.
    pub prepared: Vec<View>,
}

impl Held {
    /// Returns the views that all have to admit a call.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        std::iter::once(&self.active).chain(&self.prepared)
    }

    /// Returns whether the gateway admits no call that this view forbids.
    pub fn respects(&self, view: &View) -> bool {
        self.views().any(|held| held.id == view.id)
    }

    /// Returns whether a gateway may admit the calls of a principal.
    pub fn admits(&self, gateway: &Member, principal_uid: &str) -> bool {
        self.views().all(|view| view.home(principal_uid) == Some(gateway))
    }
}

/// What the leader answers to a beat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// Term of the leader.
    pub term: u64,
    /// Number of the beat that this answers.
    pub number: u64,
    /// How long the gateway may admit calls, in milliseconds since it sent the beat.
    pub lease_ms: u64,
    /// What the gateway has to do.
    pub instruction: Instruction,
}

/// What the leader tells a gateway to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instruction {
    /// Give up the lease, if there is one.
    Wait,
    /// Admit calls as before.
    Keep,
    /// Admit no more calls that this view forbids. Those that the views before forbid stay forbidden.
    Prepare(View),
    /// Admit calls by this view alone.
    Apply(View),
}
