//! Who spent what from a lease.

use foldhash::HashMap;

use super::{Call, Spend, SpendItem};

/// The places of tools by principal, server and tool: three look-ups by borrowed names, so that a call that was seen
/// before allocates nothing.
type Places = HashMap<String, HashMap<String, HashMap<String, usize>>>;

/// What was taken and spent, by principal, server and tool.
#[derive(Debug, Default)]
pub(super) struct Items {
    places: Places,
    taken: Vec<Taken>,
}

/// Of one principal and tool.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    reserved: Spend,
    spent: Spend,
}

impl Items {
    /// Reserves for this call; gives its place.
    pub(super) fn reserve(&mut self, call: &Call<'_>, spend: Spend) -> usize {
        let known = self.places.get(call.principal).and_then(|servers| servers.get(call.server)?.get(call.tool));
        let place = known.copied().unwrap_or_else(|| {
            let servers = self.places.entry(call.principal.to_owned()).or_default();
            let tools = servers.entry(call.server.to_owned()).or_default();
            tools.insert(call.tool.to_owned(), self.taken.len());
            self.taken.push(Taken::default());
            self.taken.len() - 1
        });
        if let Some(taken) = self.taken.get_mut(place) {
            taken.reserved = taken.reserved.plus(spend);
        }
        place
    }

    /// Ends a reservation of that place.
    pub(super) fn settle(&mut self, place: usize, reserved: Spend, spent: Spend) {
        if let Some(taken) = self.taken.get_mut(place) {
            taken.reserved = taken.reserved.minus(reserved);
            taken.spent = taken.spent.plus(spent);
        }
    }

    /// Whatever is still reserved is spent.
    pub(super) fn spend_reserved(&mut self) {
        for Taken { reserved, spent } in &mut self.taken {
            *spent = spent.plus(std::mem::take(reserved));
        }
    }

    /// What was spent, in the order of names.
    pub(super) fn report(&self) -> Vec<SpendItem> {
        let mut items = Vec::with_capacity(self.taken.len());
        for (principal, servers) in &self.places {
            for (server, tools) in servers {
                for (tool, place) in tools {
                    let Some(Taken { spent, .. }) = self.taken.get(*place) else { continue };
                    if !spent.is_nothing() {
                        items.push(SpendItem {
                            principal: principal.clone(),
                            server: server.clone(),
                            tool: tool.clone(),
                            amount: spent.amount,
                            calls: spent.calls,
                        });
                    }
                }
            }
        }
        items.sort_unstable();
        items
    }
}
