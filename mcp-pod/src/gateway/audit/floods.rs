//! Rejections that clients can multiply at little cost, such as those of invalid tokens.
//!
//! Log files rotate by size, so a line for each could push the rest of the audit trail out. The first rejection has a
//! line of its own. Others with the same reason and the same principal share one line a second, which has their number.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_fleet_policy::reason::Reason;
use parking_lot::Mutex;

use super::Subject;

/// Rejections with one reason of one principal (by UID), or of all clients that are not known (the empty UID).
pub(crate) type Flood = (Reason, Box<str>);

/// Rejections that have no line yet.
#[derive(Debug, Default)]
pub(crate) struct Floods(Mutex<HashMap<Flood, Waiting, foldhash::fast::RandomState>>);

/// Rejections that share the next line.
#[derive(Debug)]
struct Waiting {
    count: u64,
    subject: Arc<Subject<'static>>,
}

/// The line that rejections share.
#[derive(Debug)]
pub(crate) struct SharedLine {
    pub(crate) reason: Reason,
    pub(crate) count: u64,
    pub(crate) subject: Arc<Subject<'static>>,
}

impl Floods {
    /// Counts a rejection. Returns the flood if the rejection is its first, which has a line of its own. The caller then
    /// calls [`Self::take`] once a second.
    pub(crate) fn count(&self, reason: Reason, subject: &Subject<'_>) -> Option<Flood> {
        let flood = (reason, Box::from(&*subject.principal_uid));
        let mut floods = self.0.lock();
        if let Some(waiting) = floods.get_mut(&flood) {
            waiting.count += 1;
            return None;
        }
        floods.insert(flood.clone(), Waiting { count: 0, subject: Arc::new(subject.of_flood()) });
        Some(flood)
    }

    /// Returns the line of the rejections since the last call, or `None` if the flood is over.
    pub(crate) fn take(&self, flood: &Flood) -> Option<SharedLine> {
        let mut floods = self.0.lock();
        let waiting = floods.get_mut(flood)?;
        match std::mem::take(&mut waiting.count) {
            0 => {
                floods.remove(flood);
                None
            }
            count => Some(SharedLine { reason: flood.0, count, subject: Arc::clone(&waiting.subject) }),
        }
    }

    /// Counts rejections again whose line was not written.
    pub(crate) fn put_back(&self, flood: &Flood, count: u64) {
        if let Some(waiting) = self.0.lock().get_mut(flood) {
            waiting.count += count;
        }
    }

    /// Returns the lines of all rejections that have none.
    pub(crate) fn take_all(&self) -> Vec<SharedLine> {
        let floods = std::mem::take(&mut *self.0.lock());
        let line = |((reason, _), Waiting { count, subject })| SharedLine { reason, count, subject };
        floods.into_iter().map(line).filter(|line| line.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::gateway::audit::Name;

    fn subject(uid: &str) -> Subject<'_> {
        Subject {
            tenant: "acme".into(),
            generation: 7,
            principal: "acme/coder".into(),
            principal_uid: uid.into(),
            server: Name::Sent("/x"),
            tool: Name::Known("".into()),
            class: None,
            method: Name::Known("".into()),
        }
    }

    #[test]
    fn rejections_of_one_kind_share_a_line_until_none_comes() {
        let floods = Floods::default();
        let flood = floods.count(Reason::TokenRevoked, &subject("coder")).unwrap();
        for _ in 0..5 {
            assert!(floods.count(Reason::TokenRevoked, &subject("coder")).is_none());
        }
        assert!(floods.count(Reason::TokenRevoked, &subject("other")).is_some(), "another principal");
        assert!(floods.count(Reason::TokenExpired, &subject("coder")).is_some(), "another reason");
        let line = floods.take(&flood).unwrap();
        assert_eq!((line.reason, line.count, &*line.subject.principal_uid), (Reason::TokenRevoked, 5, "coder"));
        floods.put_back(&flood, 5);
        assert_eq!(floods.take(&flood).unwrap().count, 5);
        assert!(floods.take(&flood).is_none());
        assert!(floods.count(Reason::TokenRevoked, &subject("coder")).is_some(), "a new flood");
    }

    #[test]
    fn nothing_is_lost_when_the_gateway_ends() {
        let floods = Floods::default();
        let flood = floods.count(Reason::TokenInvalid, &subject("")).unwrap();
        floods.count(Reason::TokenInvalid, &subject(""));
        floods.count(Reason::TokenExpired, &subject("coder"));
        let lines = floods.take_all();
        assert_eq!((lines.len(), lines[0].count), (1, 1));
        assert!(floods.take(&flood).is_none());
    }
}
