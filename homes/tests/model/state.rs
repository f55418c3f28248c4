//! The state of the model: gateways, the leader, the messages between them, and their clocks.

use mcp_fleet_homes::gateway::Gateway;
use mcp_fleet_homes::leader::Leader;
use mcp_fleet_homes::message::{Answer, Beat, Held, Instruction};
use mcp_fleet_homes::view::Member;

/// Principals whose homes are watched. Each of four gateways is the home of one of them in some view.
pub(crate) const PRINCIPALS: [&str; 6] = ["p-0", "p-1", "p-2", "p-3", "p-4", "p-5"];

/// Everything that the next step depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) time: u64,
    /// The operator that leads. At most one does at a time, but answers of earlier ones may still be under way.
    pub(crate) leader: Leader,
    pub(crate) gateways: Vec<Process>,
    /// Messages on their way, which arrive in any order. Sorted.
    pub(crate) network: Vec<Message>,
    pub(crate) left: Left,
}

/// One process of a gateway, and its clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) gateway: Gateway,
    pub(crate) willing: bool,
    /// How far its clock is behind.
    pub(crate) behind: u64,
    /// Number of the process in its pod.
    pub(crate) epoch: u64,
    /// For defects only: what it admitted calls by last.
    pub(crate) last_held: Option<Held>,
}

impl Process {
    pub(crate) fn new(gateway: usize, epoch: u64) -> Self {
        let gateway = Gateway::new(member(gateway, epoch));
        Self { gateway, willing: true, behind: 0, epoch, last_held: None }
    }

    /// Forgets all views that were prepared for but the last. The gateway itself cannot, so it is made again.
    pub(crate) fn forget_prepared(&mut self, now: u64) {
        let (Some(held), Some(ends)) = (self.gateway.held(now).cloned(), self.gateway.lease_ends()) else { return };
        let Some((last, [_, ..])) = held.prepared.split_last() else { return };
        let (term, mut beat) = (self.gateway.term(), self.gateway.beat(now, true));
        let mut gateway = Gateway::new(self.gateway.member().clone());
        gateway.connect(term);
        while gateway.beat(now, true).number < beat.number {}
        for instruction in [Instruction::Apply(held.active), Instruction::Prepare(last.clone())] {
            gateway.receive(now, Answer { term, number: beat.number, lease_ms: ends - now, instruction });
            beat = gateway.beat(now, true);
        }
        self.gateway = gateway;
    }
}

/// How much may still happen. Bounds the number of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) beats: u8,
    pub(crate) faults: u8,
    /// How often a gateway may begin or cease to be willing.
    pub(crate) changes: u8,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Message {
    Beat { from: Member, beat: Beat },
    Answer { to: Member, answer: Answer },
}

impl State {
    pub(crate) fn send(&mut self, message: Message) {
        let at = self.network.partition_point(|other| *other < message);
        self.network.insert(at, message);
    }

    /// Returns the time on the clock of a gateway.
    pub(crate) fn clock(&self, gateway: usize) -> u64 {
        self.time - self.gateways[gateway].behind
    }

    /// Returns the gateways that admit calls of a principal now.
    pub(crate) fn homes(&self, principal: &str) -> Vec<usize> {
        let is_home = |gateway: &usize| self.gateways[*gateway].gateway.admits(self.clock(*gateway), principal);
        (0..self.gateways.len()).filter(is_home).collect()
    }
}

pub(crate) fn member(gateway: usize, epoch: u64) -> Member {
    Member { pod_uid: format!("pod-{gateway}").into(), epoch: epoch.to_string().into() }
}
