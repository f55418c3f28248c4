//! The last report of a server on its way to the operator, which keeps it for gateways that start while the server is down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_control::server_report::{DIGEST_BYTES, compress};
use mcp_fleet_policy::list::Pins;
use parking_lot::Mutex;

/// BLAKE3 of a report.
pub(crate) type ReportDigest = [u8; DIGEST_BYTES];

/// Shortest time between two reports of one server that are sent. A server may report something else at each start.
const INTERVAL: Duration = Duration::from_mins(1);

/// A report for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenReport {
    pub(crate) digest: ReportDigest,
    pub(crate) compressed: Vec<u8>,
}

/// The last report, until the operator keeps it.
#[derive(Debug, Default)]
pub(super) struct Outgoing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The definitions that the catalogue named when the report was noted. It has all of them.
    pins: Arc<Pins>,
    /// Digest of the last report, if it need not be compressed again.
    digest: Option<ReportDigest>,
    /// The report itself, if it is small enough and the operator does not keep it yet.
    compressed: Option<Vec<u8>>,
    /// Whether the report is too large to be kept.
    too_large: bool,
    sent_at: Option<Instant>,
}

impl Outgoing {
    /// Notes a report that was read and has these definitions, which the catalogue names. Returns whether it is a new one that
    /// is too large to be kept.
    pub(super) fn note(&self, digest: ReportDigest, text: &[u8], pins: &Arc<Pins>) -> bool {
        {
            let mut state = self.0.lock();
            if state.digest == Some(digest) {
                state.pins = Arc::clone(pins);
                return false;
            }
        }
        // Without the lock: the control stream must not wait for this.
        let compressed = compress(text);
        let too_large = compressed.is_none();
        let mut state = self.0.lock();
        let pins = Arc::clone(pins);
        *state = State { pins, digest: Some(digest), compressed, too_large, sent_at: state.sent_at };
        too_large
    }

    /// Returns the report that the operator should keep instead of the one with the digest `kept`, if it may be sent now. One
    /// that was noted when the catalogue named other definitions is forgotten: it may lack those that it names now.
    pub(super) fn take_due(&self, kept: Option<&ReportDigest>, pins: &Pins, now: Instant) -> Option<SeenReport> {
        let mut state = self.0.lock();
        if *state.pins != *pins {
            *state = State { sent_at: state.sent_at, ..State::default() };
            return None;
        }
        let digest = state.digest.filter(|_| !state.too_large)?;
        if kept == Some(&digest) {
            state.compressed = None;
            return None;
        }
        let Some(compressed) = state.compressed.clone() else {
            // The operator has lost it since. It is sent after it was read again.
            state.digest = None;
            return None;
        };
        if state.sent_at.is_some_and(|sent_at| now.saturating_duration_since(sent_at) < INTERVAL) {
            return None;
        }
        state.sent_at = Some(now);
        Some(SeenReport { digest, compressed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &[u8]) -> ReportDigest {
        *blake3::hash(text).as_bytes()
    }

    fn note(outgoing: &Outgoing, text: &[u8]) {
        assert!(!outgoing.note(digest(text), text, &Arc::default()));
    }

    #[test]
    fn a_report_is_sent_until_the_operator_keeps_it_and_at_most_once_a_minute() {
        let (outgoing, start) = (Outgoing::default(), Instant::now());
        let due = |kept: Option<&[u8]>, after: Duration| {
            let sent = outgoing.take_due(kept.map(digest).as_ref(), &Pins::default(), start + after);
            sent.map(|sent| {
                let text = mcp_fleet_control::server_report::decompress(&sent.compressed).unwrap();
                assert_eq!(digest(&text), sent.digest);
                text
            })
        };
        let minute = INTERVAL;
        assert_eq!(due(None, Duration::ZERO), None, "there is none yet");
        note(&outgoing, b"one");
        assert_eq!(due(None, Duration::ZERO).as_deref(), Some(&b"one"[..]));
        note(&outgoing, b"two");
        assert_eq!(due(None, minute / 2), None, "one a minute, also of another start");
        assert_eq!(due(None, minute).as_deref(), Some(&b"two"[..]));
        assert_eq!(due(Some(b"one"), 2 * minute).as_deref(), Some(&b"two"[..]), "it was not kept");
        assert_eq!(due(Some(b"two"), 3 * minute), None, "it is kept");
        note(&outgoing, b"two");
        assert_eq!(due(Some(b"two"), 4 * minute), None);
        // The operator has lost it: it is read again before it is sent.
        assert_eq!(due(None, 5 * minute), None);
        note(&outgoing, b"two");
        assert_eq!(due(None, 5 * minute).as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn a_report_that_is_too_large_is_never_sent_and_noticed_once() {
        let (outgoing, now) = (Outgoing::default(), Instant::now());
        let mut large = Vec::new();
        let mut hasher = blake3::Hasher::new();
        while large.len() <= 300 << 10 {
            large.extend_from_slice(hasher.update(b"more").finalize().as_bytes());
        }
        let (large_digest, pins) = (digest(&large), Arc::default());
        assert!(outgoing.note(large_digest, &large, &pins));
        assert!(!outgoing.note(large_digest, &large, &pins));
        assert_eq!(outgoing.take_due(None, &pins, now), None);
        note(&outgoing, b"small again");
        assert!(outgoing.take_due(None, &pins, now).is_some());
    }
}
