//! The memory of one request.

use std::sync::Arc;

use super::{Account, Full, Reservation, Use};

/// Bytes that a small request may use of what its connection has reserved. Enough for a body of 8 KiB.
const ALLOWANCE: usize = 16 * 1024;
/// Bytes in memory for each byte of a body: the body, and the strings decoded from it.
const BODY_FACTOR: usize = 2;
/// Bytes in memory of one parsed value. Measured: 32 for each number of an array, 53 in an array of small records, 139
/// for nested arrays (69 for each byte of the text), 233 for nested objects. A value takes 32 bytes, a member 56, and a
/// vector has room for at least four.
pub(crate) const VALUE: usize = 256;

/// The memory of one request, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    /// Bytes left of the allowance.
    allowance: usize,
    /// What the request needs beyond its allowance.
    reserved: Option<Reservation>,
}

/// Reserves memory for one request of a principal.
#[derive(Debug)]
pub(crate) struct Meter<'m> {
    memory: &'m mut RequestMemory,
    account: &'m Arc<Account>,
}

impl RequestMemory {
    /// Admits a request. One of many on an HTTP/2 connection reserves its allowance; on an HTTP/1.1 connection, there is
    /// only one at a time, and the connection has reserved it.
    pub(crate) fn admit(account: &Arc<Account>, http2: bool) -> Result<Self, Full> {
        account.check()?;
        let reserved = if http2 { Some(account.reserve(ALLOWANCE, Use::Request)?) } else { None };
        Ok(Self { allowance: ALLOWANCE, reserved })
    }

    /// Returns what reserves memory for this request in the account of its principal.
    pub(crate) const fn meter<'m>(&'m mut self, account: &'m Arc<Account>) -> Meter<'m> {
        Meter { memory: self, account }
    }
}

impl Meter<'_> {
    /// Reserves what this many bytes of a body need until their request is answered.
    pub(crate) fn reserve_body(&mut self, length: usize) -> Result<(), Full> {
        self.grow(length.saturating_mul(BODY_FACTOR))
    }

    /// Reserves what this many parsed values need.
    pub(crate) fn reserve_values(&mut self, values: usize) -> Result<(), Full> {
        self.grow(values.saturating_mul(VALUE))
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        if let Some(left) = self.memory.allowance.checked_sub(bytes) {
            self.memory.allowance = left;
            return Ok(());
        }
        self.memory.reserved.get_or_insert_with(|| self.account.empty()).grow(bytes, Use::Request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mcp_fleet_policy::units::Bytes as Size;

    use super::*;
    use crate::gateway::memory::Memory;

    #[test]
    fn a_small_request_reserves_nothing() {
        let account = Memory::new(Size::new(120 << 20)).of_principal().requests;
        let mut memory = RequestMemory::admit(&account, false).unwrap();
        memory.meter(&account).reserve_body(4096).unwrap();
        memory.meter(&account).reserve_values(32).unwrap();
        assert_eq!(account.used(), 0);
        memory.meter(&account).reserve_body(4096).unwrap();
        assert_eq!(account.used(), 2 * 4096);
        drop(memory);
        assert_eq!(account.used(), 0);
        let memory = RequestMemory::admit(&account, true).unwrap();
        assert_eq!(account.used(), ALLOWANCE, "HTTP/2");
        drop(memory);
    }

    #[test]
    fn the_requests_of_a_principal_fit_into_its_share() {
        let account = Memory::new(Size::new(120 << 20)).of_principal().requests;
        let admit = || {
            let mut memory = RequestMemory::admit(&account, false)?;
            memory.meter(&account).reserve_body(256 * 1024)?;
            Ok::<_, Full>(memory)
        };
        let admitted: Vec<_> = std::iter::repeat_with(admit).map_while(Result::ok).collect();
        // Two thirds of 20 MiB, and 512 KiB for each.
        assert_eq!(admitted.len(), 26);
        assert_eq!(admit().unwrap_err(), Full::Share(20 << 20));
    }
}
