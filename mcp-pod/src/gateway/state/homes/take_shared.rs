//! Calls that take from a limit of which this gateway has only a share.

use tokio::time::{Instant, timeout_at};

use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::governor::Counts;
use mcp_fleet_policy::reason::Reason;

use super::HOME_TIMEOUT;
use crate::gateway::state::State;

/// Returns whether another gateway may have what a call was refused for.
const fn is_shared(reason: Reason) -> bool {
    use Reason::{ServerConcurrencyLimited, TenantConcurrencyLimited, TenantRateLimited};
    matches!(reason, TenantRateLimited | TenantConcurrencyLimited | ServerConcurrencyLimited)
}

impl State {
    /// Takes what a call needs of the limits that gateways share: on a server, by UID, or of a built-in tool. `take` is told
    /// whether the call was counted before. If it is refused while this gateway has less than an equal part, or principals have
    /// moved a short time ago, the call waits a little for more: it is not known yet how much is wanted here.
    pub(crate) async fn take_shared<T>(
        &self,
        server_uid: Option<&str>,
        take: impl Fn(Counts) -> Result<T, Denial>,
    ) -> Result<T, Denial> {
        match take(Counts::Once) {
            Err(denial) if is_shared(denial.reason) && self.may_get_more(server_uid) => {
                // Boxed because it is rare, and would make the future of every call larger.
                Box::pin(self.wait_for_share(take)).await
            }
            taken => taken,
        }
    }

    /// Returns whether this gateway may soon have a larger share of a limit that a call takes from.
    fn may_get_more(&self, server_uid: Option<&str>) -> bool {
        self.governor.is_divided() && self.homes.has_changed_recently()
            || self.governor.lacks_share(server_uid, self.peers.count() + 1)
    }

    async fn wait_for_share<T>(&self, take: impl Fn(Counts) -> Result<T, Denial>) -> Result<T, Denial> {
        let deadline = Instant::now() + HOME_TIMEOUT;
        self.homes.hurry();
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
            let again = denial.retry_after.map_or(deadline, |retry_after| deadline.min(now + retry_after));
            let _ = timeout_at(again, changed).await;
        }
    }
}
