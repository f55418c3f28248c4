//! The images that a tenant may run. Pure.

use globset::{GlobBuilder, GlobSet};
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::{Images, ReferencePolicy};

/// A tenant's `spec.images`, compiled.
#[derive(Clone, Debug)]
pub struct AllowedImages {
    names: GlobSet,
    reference_policy: ReferencePolicy,
}

impl AllowedImages {
    /// Compiles the patterns. A pattern that does not compile allows nothing.
    pub fn new(images: &Images) -> Self {
        let mut names = GlobSet::builder();
        let globs = images.allowed.iter().flat_map(|pattern| globs(pattern));
        for glob in globs.filter_map(|glob| {
            let mut builder = GlobBuilder::new(&glob);
            builder.literal_separator(true).backslash_escape(false).build().ok()
        }) {
            names.add(glob);
        }
        Self { names: names.build().unwrap_or_else(|_| GlobSet::empty()), reference_policy: images.reference_policy }
    }

    /// Checks whether the tenant allows an image. The error says why not, and what to do.
    pub fn check(&self, image: &str) -> Result<(), (ConditionReason, String)> {
        let (name, digest) = match image.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (image, None),
        };
        let name = without_tag(name);
        if !self.names.is_match(name) {
            let message = format!(
                "the tenant's images.allowed does not cover {name}; use an image that it covers, or ask the platform team"
            );
            return Err((ConditionReason::ImageNotAllowed, message));
        }
        let pinned = digest
            .and_then(|digest| digest.strip_prefix("sha256:"))
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        if self.reference_policy == ReferencePolicy::Digest && !pinned {
            let message = format!("the tenant requires images by digest; use {name}@sha256:… with the image's digest");
            return Err((ConditionReason::ImageNotPinned, message));
        }
        Ok(())
    }
}

/// Returns the name without a tag. A colon before a slash belongs to the registry's port.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// Translates a pattern of the API to globs: `*` matches within one part of the name, `**` at the end matches
/// everything that follows, and all other characters are literal.
fn globs(pattern: &str) -> Vec<String> {
    let literal = |text: &str| {
        let parts: Vec<_> = text.split('*').map(globset::escape).collect();
        // A run of stars is one star: `**` in the middle must not cross a slash, as it would in a glob.
        let mut glob = parts.join("*");
        while glob.contains("**") {
            glob = glob.replace("**", "*");
        }
        glob
    };
    match pattern.strip_suffix("**") {
        None => vec![literal(pattern)],
        // A glob's `**` has to follow a slash, so one glob covers the rest of this part and one all that follows it.
        Some(prefix) => {
            let rest_of_part = literal(&format!("{prefix}*"));
            vec![format!("{rest_of_part}/**"), rest_of_part]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(patterns: &[&str], reference_policy: ReferencePolicy) -> AllowedImages {
        let allowed = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        AllowedImages::new(&Images { allowed, reference_policy, ..Images::default() })
    }

    fn reason(image: &str, patterns: &[&str]) -> Option<ConditionReason> {
        images(patterns, ReferencePolicy::Any).check(image).err().map(|(reason, _)| reason)
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert_eq!(reason("registry.example.com/acme/files:1", &[]), Some(ConditionReason::ImageNotAllowed));
    }

    #[test]
    fn a_star_stays_within_its_part() {
        let patterns = ["registry.example.com/acme/*"];
        assert_eq!(reason("registry.example.com/acme/files:1.2", &patterns), None);
        assert_eq!(reason("registry.example.com:5000/acme/files", &patterns), Some(ConditionReason::ImageNotAllowed));
        assert_eq!(reason("registry.example.com/acme/deep/files", &patterns), Some(ConditionReason::ImageNotAllowed));
        assert_eq!(reason("registry.example.com/acme-evil/files", &patterns), Some(ConditionReason::ImageNotAllowed));
        assert_eq!(reason("registry.example.com/acme/**", &["registry.example.com/acme/**"]), None);
        assert_eq!(reason("registry.example.com/acme/deep/files", &["registry.example.com/acme/**"]), None);
    }

    #[test]
    fn two_stars_match_everything_only_at_the_end() {
        assert_eq!(reason("r.example/acme-files/deep/x", &["r.example/acme**"]), None);
        assert_eq!(reason("r.example/acme", &["r.example/acme**"]), None);
        assert_eq!(reason("anything/at/all", &["**"]), None);
        assert_eq!(reason("r.example/a/b/files", &["r.example/**/files"]), Some(ConditionReason::ImageNotAllowed));
        assert_eq!(reason("r.example/a/files", &["r.example/**/files"]), None);
    }

    #[test]
    fn other_wildcards_of_globs_are_literal() {
        for (pattern, name) in [
            ("r.example/file?", "r.example/files"),
            ("r.example/[a-z]", "r.example/a"),
            ("r.example/{a,b}", "r.example/a"),
            ("r.example/\\*", "r.example/a"),
        ] {
            assert_eq!(reason(name, &[pattern]), Some(ConditionReason::ImageNotAllowed), "{pattern}");
        }
        assert_eq!(reason("r.example/[a]{b}?", &["r.example/[a]{b}?"]), None);
    }

    #[test]
    fn a_pattern_covers_the_whole_name() {
        assert_eq!(reason("files", &["fil"]), Some(ConditionReason::ImageNotAllowed));
        assert_eq!(reason("files", &["*s"]), None);
        assert_eq!(
            reason("evil.example/registry.example.com/acme/x", &["registry.example.com/acme/*"]),
            Some(ConditionReason::ImageNotAllowed)
        );
    }

    #[test]
    fn a_tag_does_not_pin() {
        let digest = format!("r.example/a/files@sha256:{}", "0a".repeat(32));
        let want = images(&["r.example/a/*"], ReferencePolicy::Digest);
        assert!(want.check(&digest).is_ok());
        assert_eq!(want.check("r.example/a/files:1").unwrap_err().0, ConditionReason::ImageNotPinned);
        assert_eq!(want.check("r.example/a/files@sha256:0a").unwrap_err().0, ConditionReason::ImageNotPinned);
    }

    #[test]
    fn a_registry_port_is_not_a_tag() {
        assert_eq!(without_tag("localhost:5000/files"), "localhost:5000/files");
        assert_eq!(without_tag("localhost:5000/files:1"), "localhost:5000/files");
    }
}
