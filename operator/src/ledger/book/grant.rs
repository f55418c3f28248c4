//! Granting a lease: the charge comes first, the answer after it is written.

use super::{Amount, Book, Holder, Lease, Limit, MAX_LEASES};

/// What a gateway asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Who asks.
    pub holder: Holder,
    /// Unique for its holder: asking again gives the same lease.
    pub request: u64,
    /// What would be good to have.
    pub wanted: Amount,
    /// The least that is of use.
    pub least: Amount,
}

/// A lease that stands in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Its id.
    pub lease: String,
    /// What may be spent of it; parts that are not limited are as they were asked for.
    pub amount: Amount,
    /// When it may no longer be spent, Unix milliseconds.
    pub deadline: i64,
    /// Whether the book was changed: not when the same was asked before.
    pub new: bool,
}

/// Why nothing was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Less than the least is left, and nobody holds what could come back.
    Exhausted,
    /// Others hold what could come back, or there are too many leases: worth another try.
    Held,
}

impl Book {
    /// Charges a lease. `id` names it if it is new, and `deadline` (Unix milliseconds) ends it.
    pub(crate) fn grant(&mut self, ask: &Ask, limit: Limit, id: String, deadline: i64) -> Result<Granted, Refusal> {
        let earlier = self.leases.iter().find(|lease| lease.holder == ask.holder && lease.request == ask.request);
        if let Some(lease) = earlier {
            let amount = offered(lease.granted, ask.wanted);
            return Ok(Granted { lease: lease.id.clone(), amount, deadline: lease.deadline, new: false });
        }
        let used = self.charged();
        let granted = Limit {
            micros: share(limit.micros, used.micros, ask.wanted.micros, ask.least.micros, || self.refusal(ask, limit))?,
            calls: share(limit.calls, used.calls, ask.wanted.calls, ask.least.calls, || self.refusal(ask, limit))?,
        };
        if self.leases.len() >= MAX_LEASES {
            return Err(Refusal::Held);
        }
        let amount = offered(granted, ask.wanted);
        let holder = ask.holder.clone();
        let lease =
            Lease { id: id.clone(), holder, request: ask.request, granted, deadline, sequence: 0, entries: Vec::new() };
        self.leases.push(lease);
        Ok(Granted { lease: id, amount, deadline, new: true })
    }

    /// Exhausted for good, or only until others give back what they hold?
    fn refusal(&self, ask: &Ask, limit: Limit) -> Refusal {
        let held: Amount = self.leases.iter().filter(|lease| lease.holder != ask.holder).map(Lease::outstanding).sum();
        let firm = self.charged().minus(held);
        let room = |limit: Option<u64>, used: u64, least: u64| {
            limit.is_none_or(|limit| limit.saturating_sub(used) >= least.max(1))
        };
        let enough =
            room(limit.micros, firm.micros, ask.least.micros) && room(limit.calls, firm.calls, ask.least.calls);
        if held != Amount::default() && enough { Refusal::Held } else { Refusal::Exhausted }
    }
}

/// The part of a limit that a lease gets: at most half of the room, so that one holder does not take it all, but
/// never less than what is of use to it.
fn share(
    limit: Option<u64>,
    used: u64,
    wanted: u64,
    least: u64,
    refusal: impl FnOnce() -> Refusal,
) -> Result<Option<u64>, Refusal> {
    let Some(limit) = limit else { return Ok(None) };
    let room = limit.saturating_sub(used);
    // Asking for nothing in this part is granted nothing; asking for something and getting nothing is a refusal.
    if room < least || (room == 0 && wanted > 0) {
        return Err(refusal());
    }
    Ok(Some(wanted.max(least).min((room / 2).max(least).max(u64::from(wanted > 0)))))
}

fn offered(granted: Limit, wanted: Amount) -> Amount {
    Amount { micros: granted.micros.unwrap_or(wanted.micros), calls: granted.calls.unwrap_or(wanted.calls) }
}
