//! A bound on what one address can hold at a time, so that it cannot use up a shared resource.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Bits of the address of an IPv6 network: a host chooses the others, also anew for each connection (RFC 8981).
const NETWORK_BITS: u32 = 64;

/// Returns what an address counts as in a limit: itself in IPv4, and its network of 64 bits in IPv6.
pub(crate) fn limited(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> (Ipv6Addr::BITS - NETWORK_BITS) << (Ipv6Addr::BITS - NETWORK_BITS);
            IpAddr::V6(network.into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Number of slots that each address holds. To be asked with what [`limited`] returns, unless the address is known to be one of ours.
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
    fn a_network_of_ipv6_counts_as_one_address() {
        let network = |text: &str| limited(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("2001:db8:1:3::1"), "2001:db8:1:3::");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
    }

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
