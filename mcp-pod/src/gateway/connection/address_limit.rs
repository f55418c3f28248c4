//! A bound on what one address can hold at a time, so that it cannot use up a shared resource.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Number of slots that each address holds.
#[derive(Debug)]
pub(crate) struct AddressLimit {
    max_per_address: u32,
    counts: Mutex<HashMap<IpAddr, u32, foldhash::fast::RandomState>>,
}

/// A slot held by an address. Released on drop.
#[derive(Debug)]
pub(crate) struct AddressSlot {
    limit: Arc<AddressLimit>,
    address: IpAddr,
}

impl AddressLimit {
    /// Returns a limit of `max_per_address` slots for each address.
    pub(crate) fn new(max_per_address: u32) -> Arc<Self> {
        Arc::new(Self { max_per_address, counts: Mutex::default() })
    }

    /// Takes a slot for the address, if it is below the limit.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<AddressSlot> {
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_insert(0);
        if *count >= self.max_per_address {
            return None;
        }
        *count += 1;
        Some(AddressSlot { limit: Arc::clone(self), address })
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut counts = self.limit.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_gets_its_slots_and_no_more() {
        let limit = AddressLimit::new(2);
        let (one, other) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::BROADCAST));
        let first = limit.take(one).unwrap();
        let _second = limit.take(one).unwrap();
        assert!(limit.take(one).is_none());
        assert!(limit.take(other).is_some());
        drop(first);
        assert!(limit.take(one).is_some());
        assert_eq!(limit.counts.lock().len(), 1, "addresses without slots are removed");
    }
}
