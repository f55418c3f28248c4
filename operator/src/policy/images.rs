//! Which images a tenant may run. Pure.

use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::{Images, ReferencePolicy};

/// Whether the tenant allows the image; if not, why, and what to do.
pub(crate) fn check(image: &str, allowed: &Images) -> Result<(), (ConditionReason, String)> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let name = without_tag(name);
    if !allowed.allowed.iter().any(|pattern| matches(pattern, name)) {
        let message = format!(
            "the tenant's images.allowed does not cover {name}; use an image that it covers, or ask the platform team"
        );
        return Err((ConditionReason::ImageNotAllowed, message));
    }
    let pinned = digest
        .and_then(|digest| digest.strip_prefix("sha256:"))
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    if allowed.reference_policy == ReferencePolicy::Digest && !pinned {
        let message = format!("the tenant wants images by digest; write {name}@sha256:… with the image's digest");
        return Err((ConditionReason::ImageNotPinned, message));
    }
    Ok(())
}

/// The name without a tag. A colon before a slash belongs to the registry's port.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// Whether a pattern covers a name: `*` stands for any run but of slashes, `**` at the end for all of the rest.
fn matches(pattern: &str, name: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix("**") {
        return (0..=name.len())
            .filter(|end| name.is_char_boundary(*end))
            .any(|end| glob(prefix.as_bytes(), &name.as_bytes()[..end]));
    }
    glob(pattern.as_bytes(), name.as_bytes())
}

/// Matching with one star remembered: linear in the product of the lengths, which are bounded.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else {
            // Give the last star one more character, which must not be a slash.
            let Some((at, taken)) = star.filter(|(_, taken)| text.get(*taken) != Some(&b'/')) else { return false };
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(patterns: &[&str], reference_policy: ReferencePolicy) -> Images {
        Images { allowed: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(), reference_policy }
    }

    fn reason(image: &str, patterns: &[&str]) -> Option<ConditionReason> {
        check(image, &images(patterns, ReferencePolicy::Any)).err().map(|(reason, _)| reason)
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
        assert!(check(&digest, &want).is_ok());
        assert_eq!(check("r.example/a/files:1", &want).unwrap_err().0, ConditionReason::ImageNotPinned);
        assert_eq!(check("r.example/a/files@sha256:0a", &want).unwrap_err().0, ConditionReason::ImageNotPinned);
    }

    #[test]
    fn a_registry_port_is_no_tag() {
        assert_eq!(without_tag("localhost:5000/files"), "localhost:5000/files");
        assert_eq!(without_tag("localhost:5000/files:1"), "localhost:5000/files");
    }
}
