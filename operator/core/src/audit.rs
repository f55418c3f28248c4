//! What gateways report of their audit logs.

use mcp_fleet_audit::{Digest, Head};
use mcp_fleet_control::wire::AuditHead;

/// Reads the last line of a log, as a gateway reports it; none if it is invalid.
pub fn from_wire(head: &AuditHead) -> Option<Head> {
    let AuditHead { chain, sequence, digest } = head;
    let (chain, digest) = (chain.parse().ok()?, Digest::from_slice(digest)?);
    (*sequence > 0).then_some(Head { chain, sequence: *sequence, digest })
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn a_report_that_names_no_line_is_ignored() {
        let wire =
            |chain: &str, sequence, digest: &[u8]| AuditHead { chain: chain.into(), sequence, digest: digest.into() };
        let chain = Ulid::from_parts(1, 0).to_string();
        assert!(from_wire(&wire(&chain, 1, &[7; 32])).is_some());
        for invalid in [wire("x", 1, &[7; 32]), wire(&chain, 0, &[7; 32]), wire(&chain, 1, &[7; 31])] {
            assert_eq!(from_wire(&invalid), None);
        }
    }
}
