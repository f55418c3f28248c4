//! Calls that take from a limit of which this gateway has only a share.

use tokio::time::{Instant, timeout_at};

use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::governor::Counts;
use mcp_fleet_policy::reason::Reason;

use super::HOME_TIMEOUT;
use crate::gateway::state::State;

/// Most calls that wait for a place among the calls in flight that another gateway does not use. What callers make a gateway hold
/// has to be little.
pub(super) const MAX_WAITING: usize = 64;

/// Returns whether another gateway may have what a call was refused for.
const fn is_shared(reason: Reason) -> bool {
    matches!(reason, Reason::TenantRateLimited) || is_in_flight(reason)
}

/// Returns whether a call was refused because others are in flight.
const fn is_in_flight(reason: Reason) -> bool {
    matches!(reason, Reason::TenantConcurrencyLimited | Reason::ServerConcurrencyLimited)
}

impl State {
    /// Takes what a call needs of the limits that gateways share: on a server, by UID, or of a built-in tool. `take` is told
    /// whether the call was counted before. If it is refused what other gateways may have, the call waits a little for more.
    pub(crate) async fn take_shared<T>(
        &self,
        server_uid: Option<&str>,
        take: impl Fn(Counts) -> Result<T, Denial>,
    ) -> Result<T, Denial> {
        match take(Counts::Once) {
            Err(denial) if is_shared(denial.reason) && self.governor.is_divided() => {
                // Boxed because it is rare, and would make the future of every call larger.
                Box::pin(self.wait_for_share(server_uid, denial, take)).await
            }
            taken => taken,
        }
    }

    /// Waits for a larger share if this gateway can be given one soon: it has less than an equal part; or principals have moved a
    /// short time ago, so that it is not known yet how much is wanted here; or calls in flight of all gateways are fewer than the
    /// limit, as far as this one knows.
    async fn wait_for_share<T>(
        &self,
        server_uid: Option<&str>,
        denial: Denial,
        take: impl Fn(Counts) -> Result<T, Denial>,
    ) -> Result<T, Denial> {
        let lacks = |gateways| self.governor.lacks_share(denial.reason, server_uid, gateways);
        let _waiting = if self.homes.has_changed_recently() || lacks(self.peers.count() + 1) {
            None
        } else if is_in_flight(denial.reason) && lacks(1) {
            let Ok(waiting) = self.homes.waiting.try_acquire() else { return Err(denial) };
            Some(waiting)
        } else {
            return Err(denial);
        };
        let deadline = Instant::now() + HOME_TIMEOUT;
        let ask = self.homes.ask_at();
        let mut has_asked = false;
        loop {
            let changed = self.homes.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let denial = match take(Counts::Already) {
                Err(denial) if is_shared(denial.reason) => denial,
                taken => return taken,
            };
            let now = Instant::now();
            if now >= deadline {
                return Err(denial);
            }
            if now >= ask && !has_asked {
                self.homes.hurry();
                has_asked = true;
            }
            let again = denial.retry_after.map_or(deadline, |retry_after| deadline.min(now + retry_after));
            let again = if has_asked { again } else { again.min(ask) };
            let _ = timeout_at(again, changed).await;
        }
    }
}
