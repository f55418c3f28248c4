//! Bytes that are counted until the last reference to them is dropped.

use std::sync::Arc;

use bytes::Bytes;

use super::{Account, Reservation};

struct Counted {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the same bytes, counted in the account until the transport has written the last of them.
pub(crate) fn count(account: &Arc<Account>, bytes: Bytes) -> Bytes {
    let reservation = account.count(bytes.len());
    Bytes::from_owner(Counted { bytes, _reservation: reservation })
}
