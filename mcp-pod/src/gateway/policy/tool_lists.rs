//! Tools as their callers see them, rendered once: equal grants share one text.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::gateway::upstream::Report;

/// Bytes of different texts that are kept: a server that describes itself at length to many different callers has them
/// rendered again.
const KEPT: usize = 16 << 20;

/// The texts, by principal and server; filled as they are asked for.
#[derive(Debug, Default)]
pub(super) struct ToolLists(RwLock<Kept>);

#[derive(Debug, Default)]
struct Kept {
    listed: HashMap<(usize, usize), Listed, foldhash::fast::RandomState>,
    /// Every text once, by its digest.
    texts: HashMap<blake3::Hash, Bytes, foldhash::fast::RandomState>,
    /// Their bytes.
    bytes: usize,
}

/// The tools of one server as one principal sees them, rendered from one report: which must not live on for it.
#[derive(Clone, Debug)]
struct Listed {
    report: Weak<Report>,
    tools: Bytes,
}

impl ToolLists {
    /// The text of that principal and server, rendered if there is none from this report.
    pub(super) fn get(&self, key: (usize, usize), report: &Arc<Report>, render: impl FnOnce() -> Vec<u8>) -> Bytes {
        if let Some(listed) = self.0.read().listed.get(&key)
            && std::ptr::eq(listed.report.as_ptr(), Arc::as_ptr(report))
        {
            return listed.tools.clone();
        }
        let tools = Bytes::from(render());
        let digest = blake3::hash(&tools);
        let mut kept = self.0.write();
        let tools = if let Some(same) = kept.texts.get(&digest) {
            same.clone()
        } else {
            if kept.bytes.saturating_add(tools.len()) > KEPT {
                *kept = Kept::default();
            }
            kept.bytes += tools.len();
            kept.texts.insert(digest, tools.clone());
            tools
        };
        kept.listed.insert(key, Listed { report: Arc::downgrade(report), tools: tools.clone() });
        tools
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lists: &ToolLists, key: (usize, usize), report: &Arc<Report>, text: &str) -> Bytes {
        lists.get(key, report, || text.as_bytes().to_vec())
    }

    #[test]
    fn equal_grants_share_one_text_until_the_server_reports_anew() {
        let (lists, report) = (ToolLists::default(), Arc::new(Report::default()));
        let first = text(&lists, (0, 0), &report, "[1]");
        assert_eq!(text(&lists, (0, 0), &report, "rendered twice"), "[1]");
        assert_eq!(text(&lists, (1, 0), &report, "[1]").as_ptr(), first.as_ptr());
        assert_eq!(text(&lists, (2, 0), &report, "[2]"), "[2]");
        assert_eq!(Arc::strong_count(&report), 1, "the list keeps the report alive");
        assert_eq!(text(&lists, (0, 0), &Arc::new(Report::default()), "[3]"), "[3]");
    }

    #[test]
    fn many_long_texts_are_not_all_kept() {
        let (lists, report) = (ToolLists::default(), Arc::new(Report::default()));
        for principal in 0..40 {
            let own = format!("{principal}").repeat(1 << 19);
            assert_eq!(text(&lists, (principal, 0), &report, &own), own);
            let kept: usize = lists.0.read().listed.values().map(|listed| listed.tools.len()).sum();
            assert!(kept <= KEPT, "{kept} bytes");
        }
    }
}
