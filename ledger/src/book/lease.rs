//! Grants leases: charges a lease to the book before the gateway receives it.

use super::{Amount, Book, Holder, Lease, Limit, MAX_LEASES};

/// A gateway's request for a lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRequest {
    /// Process that requests the lease.
    pub holder: Holder,
    /// Number of the request, unique for its holder: a repeated request gets the same lease.
    pub number: u64,
    /// Amount that the holder would like.
    pub wanted: Amount,
    /// Smallest amount that the holder can use.
    pub minimum: Amount,
}

/// A lease that is charged to the book.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantedLease {
    /// Identifier of the lease.
    pub lease: String,
    /// Amount that may be spent. Parts without a limit are as requested.
    pub amount: Amount,
    /// Time from which the lease may no longer be spent, Unix milliseconds.
    pub deadline: i64,
    /// Whether the lease was added to the book; false for a repeated request.
    pub new: bool,
}

/// Why a lease was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Less than the minimum is left, and no other holder could return enough.
    Exhausted,
    /// Other holders could return enough, or there are too many leases: a retry can succeed.
    Held,
}

impl Book {
    /// Charges a lease to the book. `id` and `deadline` (Unix milliseconds) are used only if the lease is new.
    pub fn grant(
        &mut self,
        request: &LeaseRequest,
        limit: Limit,
        id: String,
        deadline: i64,
    ) -> Result<GrantedLease, Refusal> {
        let LeaseRequest { holder, number, wanted, minimum } = request;
        let earlier = self.leases.iter().find(|lease| lease.holder == *holder && lease.request == *number);
        if let Some(lease) = earlier {
            let amount = spendable(lease.granted, *wanted);
            return Ok(GrantedLease { lease: lease.id.clone(), amount, deadline: lease.deadline, new: false });
        }
        let used = self.charged();
        let charge = |part: Option<u64>, used: u64, wanted: u64, minimum: u64| {
            let portion = part.map(|part| portion(part, used, wanted, minimum));
            portion.map(|portion| portion.ok_or_else(|| self.refusal(request, limit))).transpose()
        };
        let granted = Limit {
            micros: charge(limit.micros, used.micros, wanted.micros, minimum.micros)?,
            calls: charge(limit.calls, used.calls, wanted.calls, minimum.calls)?,
        };
        if self.leases.len() >= MAX_LEASES {
            return Err(Refusal::Held);
        }
        let amount = spendable(granted, *wanted);
        let holder = holder.clone();
        let lease =
            Lease { id: id.clone(), holder, request: *number, granted, deadline, sequence: 0, entries: Vec::new() };
        self.leases.push(lease);
        Ok(GrantedLease { lease: id, amount, deadline, new: true })
    }

    /// Returns up to eight leases of other holders that could be returned, as pairs of pod UID and lease.
    pub fn recallable(&self, holder: &Holder) -> Vec<(String, String)> {
        let others = self.leases.iter().filter(|lease| lease.holder != *holder);
        others.map(|lease| (lease.holder.pod_uid.clone(), lease.id.clone())).take(8).collect()
    }

    /// Returns whether the budget is exhausted, or only until other holders return their leases.
    fn refusal(&self, request: &LeaseRequest, limit: Limit) -> Refusal {
        let returnable: Amount =
            self.leases.iter().filter(|lease| lease.holder != request.holder).map(Lease::outstanding).sum();
        let used = self.charged().saturating_sub(returnable);
        let has_room = |limit: Option<u64>, used: u64, minimum: u64| {
            limit.is_none_or(|limit| limit.saturating_sub(used) >= minimum.max(1))
        };
        let enough = has_room(limit.micros, used.micros, request.minimum.micros)
            && has_room(limit.calls, used.calls, request.minimum.calls);
        if returnable != Amount::default() && enough { Refusal::Held } else { Refusal::Exhausted }
    }
}

/// Returns the portion of a limit that a lease gets; none if less than the minimum is left.
///
/// The portion is at most half of what is left, so that one holder does not take all of it, but at least the minimum.
fn portion(limit: u64, used: u64, wanted: u64, minimum: u64) -> Option<u64> {
    let room = limit.saturating_sub(used);
    // A request for zero is granted zero. A request for more that could only be granted zero is refused.
    if room < minimum || (room == 0 && wanted > 0) {
        return None;
    }
    Some(wanted.max(minimum).min((room / 2).max(minimum).max(u64::from(wanted > 0))))
}

/// Returns the amount that the holder may spend: what was granted, or what was requested in parts without a limit.
fn spendable(granted: Limit, wanted: Amount) -> Amount {
    Amount { micros: granted.micros.unwrap_or(wanted.micros), calls: granted.calls.unwrap_or(wanted.calls) }
}
