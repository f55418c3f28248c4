//! Which reports of tool servers are kept in Secrets: their digests, from the metadata of the Secrets.

use std::collections::{BTreeMap, HashSet};

use kube::core::ObjectMeta;
use mcp_fleet_control::Digest;
use mcp_fleet_control::server_report::DIGEST_BYTES;
use mcp_fleet_core::labels;
use parking_lot::RwLock;

use super::owned::Key;

/// A report that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptReport {
    pub server_uid: String,
    /// BLAKE3 of the report, uncompressed.
    pub digest: [u8; DIGEST_BYTES],
}

/// Returns the digest of the report in a Secret; none if its annotation has none.
pub(crate) fn report_digest(metadata: &ObjectMeta) -> Option<[u8; DIGEST_BYTES]> {
    let text = metadata.annotations.as_ref()?.get(labels::REPORT_DIGEST)?;
    text.parse::<Digest>().ok()?.to_vec().try_into().ok()
}

/// Returns a digest as the annotation has it.
pub(crate) fn digest_text(digest: [u8; DIGEST_BYTES]) -> String {
    // Only the text form matters here, which digests of policies have too.
    Digest::from_slice(&digest).map(|digest| digest.to_string()).unwrap_or_default()
}

/// The kept reports of one namespace, by name of the Secret.
#[derive(Debug, Default)]
pub(super) struct KeptReports(RwLock<BTreeMap<String, KeptReport>>);

impl KeptReports {
    /// Returns whether a Secret holds the report of a server.
    pub(super) fn holds(metadata: &ObjectMeta) -> bool {
        let component = metadata.labels.as_ref().and_then(|labels| labels.get(labels::COMPONENT));
        component.is_some_and(|component| component == labels::SERVER_REPORT)
    }

    /// Adds a Secret that the watch delivered. One without a digest or a server is as good as none: it is written again.
    pub(super) fn put(&self, name: &str, metadata: &ObjectMeta) {
        let server_uid = metadata.labels.as_ref().and_then(|labels| labels.get(labels::SERVER_UID));
        match (server_uid, report_digest(metadata)) {
            (Some(server_uid), Some(digest)) => {
                self.insert(name, KeptReport { server_uid: server_uid.clone(), digest });
            }
            _ => self.remove(name),
        }
    }

    pub(super) fn insert(&self, name: &str, report: KeptReport) {
        self.0.write().insert(name.to_owned(), report);
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.write().remove(name);
    }

    /// Removes the reports whose Secrets are not in `listed`, a full list.
    pub(super) fn retain(&self, listed: &HashSet<Key>) {
        let names: HashSet<&str> = listed.iter().map(|key| key.name.as_str()).collect();
        self.0.write().retain(|name, _| names.contains(name.as_str()));
    }

    pub(super) fn get(&self, name: &str) -> Option<KeptReport> {
        self.0.read().get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<KeptReport> {
        self.0.read().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_exactly_64_hexadecimal_digits() {
        let digest = |text: &str| {
            let annotations = Some([(labels::REPORT_DIGEST.to_owned(), text.to_owned())].into());
            report_digest(&ObjectMeta { annotations, ..ObjectMeta::default() })
        };
        assert_eq!(digest(&digest_text([10; 32])), Some([10; 32]));
        for bad in
            ["", "0a", &"0a".repeat(33), &"0a".repeat(32)[1..], &"+a".repeat(32), &"é".repeat(32), &"xx".repeat(32)]
        {
            assert_eq!(digest(bad), None, "{bad}");
        }
    }
}
