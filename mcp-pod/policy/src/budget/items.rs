//! Reserved and spent amounts of one lease, by principal, server and tool.

use foldhash::HashMap;

use super::{PricedCall, Spend, SpendItem};

/// Indices by principal, server and tool. Three nested lookups by borrowed names, so that a repeated call allocates
/// nothing.
type Indices = HashMap<String, HashMap<String, HashMap<String, usize>>>;

/// Usage of one lease, by principal, server and tool.
#[derive(Debug, Default)]
#[cfg_attr(feature = "model-checking", derive(Clone, PartialEq, Eq))]
pub(super) struct Items {
    pub(super) indices: Indices,
    pub(super) usage: Vec<Usage>,
}

/// Usage by one principal of one tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Usage {
    reserved: Spend,
    spent: Spend,
}

impl Items {
    /// Adds a reservation for this call and returns the index of its item.
    pub(super) fn reserve(&mut self, call: &PricedCall<'_>, spend: Spend) -> usize {
        let known = self.indices.get(call.principal).and_then(|servers| servers.get(call.server)?.get(call.tool));
        let index = known.copied().unwrap_or_else(|| {
            let servers = self.indices.entry(call.principal.to_owned()).or_default();
            let tools = servers.entry(call.server.to_owned()).or_default();
            tools.insert(call.tool.to_owned(), self.usage.len());
            self.usage.push(Usage::default());
            self.usage.len() - 1
        });
        if let Some(usage) = self.usage.get_mut(index) {
            usage.reserved = usage.reserved.plus(spend);
        }
        index
    }

    /// Settles a reservation of the item at this index.
    pub(super) fn settle(&mut self, index: usize, reserved: Spend, spent: Spend) {
        if let Some(usage) = self.usage.get_mut(index) {
            usage.reserved = usage.reserved.minus(reserved);
            usage.spent = usage.spent.plus(spent);
        }
    }

    /// Counts every open reservation as spent.
    pub(super) fn spend_reserved(&mut self) {
        for Usage { reserved, spent } in &mut self.usage {
            *spent = spent.plus(std::mem::take(reserved));
        }
    }

    /// Returns the sum of what is spent.
    pub(super) fn spent(&self) -> Spend {
        self.usage.iter().fold(Spend::default(), |sum, usage| sum.plus(usage.spent))
    }

    /// Removes what is spent and returns it. Open reservations stay.
    pub(super) fn take_spent(&mut self) -> Vec<SpendItem> {
        let spent = self.report();
        if self.usage.iter().all(|usage| usage.reserved.is_nothing()) {
            *self = Self::default();
        } else {
            self.usage.iter_mut().for_each(|usage| usage.spent = Spend::default());
        }
        spent
    }

    /// Returns the spend of each principal and tool, sorted by name.
    pub(super) fn report(&self) -> Vec<SpendItem> {
        let mut items = Vec::with_capacity(self.usage.len());
        for (principal, servers) in &self.indices {
            for (server, tools) in servers {
                for (tool, index) in tools {
                    let Some(Usage { spent, .. }) = self.usage.get(*index) else { continue };
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
