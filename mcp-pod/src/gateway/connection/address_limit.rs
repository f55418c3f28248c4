//! How much of something one address may hold at a time, so that it cannot hold all of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// What addresses hold.
#[derive(Debug)]
pub(crate) struct AddressLimit {
    most: u32,
    held: Mutex<HashMap<IpAddr, u32, foldhash::fast::RandomState>>,
}

/// One that is held; given back when dropped.
#[derive(Debug)]
pub(crate) struct AddressSlot {
    quota: Arc<AddressLimit>,
    address: IpAddr,
}

impl AddressLimit {
    /// At most so many for each address.
    pub(crate) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// One more for that address, if it may have it.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<AddressSlot> {
        let mut held = self.held.lock();
        let count = held.entry(address).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(AddressSlot { quota: Arc::clone(self), address })
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut held = self.quota.held.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
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
    fn an_address_gets_its_share_and_no_more() {
        let quota = AddressLimit::new(2);
        let (one, other) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::BROADCAST));
        let first = quota.take(one).unwrap();
        let _second = quota.take(one).unwrap();
        assert!(quota.take(one).is_none());
        assert!(quota.take(other).is_some());
        drop(first);
        assert!(quota.take(one).is_some());
        assert_eq!(quota.held.lock().len(), 1, "what is not held is forgotten");
    }
}
