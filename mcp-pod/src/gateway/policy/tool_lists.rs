//! Tool lists as principals see them, rendered once. Principals with equal grants share one text.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::gateway::upstream::Report;

/// Bytes of texts that are cached. Beyond that the cache is cleared, and texts are rendered again.
const CACHE_SIZE: usize = 16 << 20;

/// Cache of rendered tool lists.
#[derive(Debug, Default)]
pub(super) struct ToolLists(RwLock<Cache>);

#[derive(Debug, Default)]
struct Cache {
    /// Lists by the indices of principal and server.
    lists: HashMap<(usize, usize), Listed, foldhash::fast::RandomState>,
    /// Each text once, by its digest.
    texts: HashMap<blake3::Hash, Bytes, foldhash::fast::RandomState>,
    /// Total length of the texts.
    bytes: usize,
}

/// A tool list and the report it was rendered from, which the cache does not keep alive.
#[derive(Clone, Debug)]
struct Listed {
    report: Weak<Report>,
    tools: Bytes,
}

impl ToolLists {
    /// Returns the list for a principal and a server, rendered if the cached one is not from this report.
    pub(super) fn get<E>(
        &self,
        key: (usize, usize),
        report: &Arc<Report>,
        render: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Bytes, E> {
        if let Some(listed) = self.0.read().lists.get(&key)
            && std::ptr::eq(listed.report.as_ptr(), Arc::as_ptr(report))
        {
            return Ok(listed.tools.clone());
        }
        let tools = Bytes::from(render()?);
        let digest = blake3::hash(&tools);
        let mut cache = self.0.write();
        let tools = if let Some(same) = cache.texts.get(&digest) {
            same.clone()
        } else {
            if cache.bytes.saturating_add(tools.len()) > CACHE_SIZE {
                *cache = Cache::default();
            }
            cache.bytes += tools.len();
            cache.texts.insert(digest, tools.clone());
            tools
        };
        cache.lists.insert(key, Listed { report: Arc::downgrade(report), tools: tools.clone() });
        Ok(tools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lists: &ToolLists, key: (usize, usize), report: &Arc<Report>, text: &str) -> Bytes {
        lists.get(key, report, || Ok::<_, ()>(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn equal_grants_share_one_text_until_the_report_changes() {
        let (lists, report) = (ToolLists::default(), Arc::new(Report::default()));
        assert_eq!(lists.get((0, 0), &report, || Err("there is no memory")), Err("there is no memory"));
        let first = text(&lists, (0, 0), &report, "[1]");
        assert_eq!(text(&lists, (0, 0), &report, "rendered twice"), "[1]");
        assert_eq!(text(&lists, (1, 0), &report, "[1]").as_ptr(), first.as_ptr());
        assert_eq!(text(&lists, (2, 0), &report, "[2]"), "[2]");
        assert_eq!(Arc::strong_count(&report), 1, "the list keeps the report alive");
        assert_eq!(text(&lists, (0, 0), &Arc::new(Report::default()), "[3]"), "[3]");
    }

    #[test]
    fn the_cache_of_texts_is_bounded() {
        let (lists, report) = (ToolLists::default(), Arc::new(Report::default()));
        for principal in 0..40 {
            let own = format!("{principal}").repeat(1 << 19);
            assert_eq!(text(&lists, (principal, 0), &report, &own), own);
            let cached: usize = lists.0.read().lists.values().map(|listed| listed.tools.len()).sum();
            assert!(cached <= CACHE_SIZE, "{cached} bytes");
        }
    }
}
