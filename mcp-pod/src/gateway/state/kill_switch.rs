//! The fleet's kill switch, as calls see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::kill_switch::KillSwitch;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::State;

/// The kill switch, and the denial that calls get while it is on.
#[derive(Debug, Default)]
pub(super) struct SharedKillSwitch {
    known: Mutex<KillSwitch>,
    /// Read by every call without a lock.
    denial: ArcSwapOption<Denial>,
}

impl State {
    /// Records the state of the fleet's kill switch that the operator read `age` before now: the reason of the stop, or
    /// `None` if calls are allowed. When this returns and the switch is on, no call is handed to its server any more.
    pub fn set_kill_switch(&self, age: Duration, stopped: Option<&str>) {
        let now = Instant::now();
        let mut known = self.kill_switch.known.lock();
        if !known.observe(now.checked_sub(age).unwrap_or(now), stopped) {
            return;
        }
        let denial = known.denial();
        self.metrics.set_kill_switch(denial.is_some());
        self.kill_switch.denial.store(denial.clone().map(Arc::new));
        if let Some(denial) = denial {
            self.hand_over.wait();
            warn!(limit = denial.limit, "the kill switch is on: all tool calls are refused");
        } else {
            info!("the kill switch is off: tool calls are allowed again");
        }
    }

    /// Returns the denial of every call while the fleet's kill switch is on.
    pub(crate) fn check_kill_switch(&self) -> Result<(), Denial> {
        match &*self.kill_switch.denial.load() {
            Some(denial) => Err(Denial::clone(denial)),
            None => Ok(()),
        }
    }

    /// Returns whether the fleet's kill switch is on.
    pub(crate) fn is_stopped(&self) -> bool {
        self.kill_switch.denial.load().is_some()
    }
}
