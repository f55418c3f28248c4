//! Which images a tenant's servers may run (`spec.images` of its `MCPTenant`).

use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::{Images, ReferencePolicy};

/// Why an image may not be run: a reason and a message that says what to do. None: it may.
pub fn image_problem(images: &Images, image: &str) -> Option<(ConditionReason, String)> {
    let (name, digest) = parts(image);
    if !images.allowed.iter().any(|pattern| matches(pattern, name)) {
        return Some((
            ConditionReason::ImageNotAllowed,
            format!(
                "source.stdio.image {image:?} is not covered by images.allowed of the tenant; use another image or ask the platform team"
            ),
        ));
    }
    let pinned = digest.and_then(|digest| digest.strip_prefix("sha256:")).is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    if images.reference_policy == ReferencePolicy::Digest && !pinned {
        return Some((
            ConditionReason::ImageNotPinned,
            format!(
                "source.stdio.image {image:?} must be referred to by digest (name@sha256:…), as the tenant's images.referencePolicy wants it"
            ),
        ));
    }
    None
}

/// The name without tag and digest, and the digest.
fn parts(image: &str) -> (&str, Option<&str>) {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let name = match rest.get(last..).and_then(|part| part.find(':')) {
        Some(colon) => rest.get(..last + colon).unwrap_or(rest),
        None => rest,
    };
    (name, digest)
}

/// Whether a pattern covers a name: `*` is any run without a slash, `**` at the end the rest.
fn matches(pattern: &str, name: &str) -> bool {
    if let Some(start) = pattern.strip_suffix("**") {
        // The start may hold single stars; so every prefix of the name is tried.
        return (0..=name.len()).filter_map(|end| name.get(..end)).any(|prefix| glob(start, prefix));
    }
    glob(pattern, name)
}

/// Single stars only; steps back to the last star when the rest does not fit, so it is linear times the stars.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, seen));
            at += 1;
        } else if pattern.get(at) == name.get(seen) {
            at += 1;
            seen += 1;
        } else if let Some((star_at, taken)) = star.filter(|(_, taken)| name.get(*taken) != Some(&b'/')) {
            star = Some((star_at, taken + 1));
            at = star_at + 1;
            seen = taken + 1;
        } else {
            return false;
        }
    }
    pattern.get(at..).is_none_or(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(allowed: &[&str], reference_policy: ReferencePolicy) -> Images {
        Images { allowed: allowed.iter().map(|&pattern| pattern.to_owned()).collect(), reference_policy }
    }

    fn allowed(pattern: &str, image: &str) -> bool {
        image_problem(&images(&[pattern], ReferencePolicy::Any), image).is_none()
    }

    #[test]
    fn a_star_stands_for_a_part_of_the_path_and_two_for_the_rest() {
        assert!(allowed("registry.example.com/acme/*", "registry.example.com/acme/files:1.0"));
        assert!(allowed("registry.example.com/*/files", "registry.example.com/acme/files"));
        assert!(!allowed("registry.example.com/acme/*", "registry.example.com/acme/sub/files"));
        assert!(allowed("registry.example.com/acme/**", "registry.example.com/acme/sub/files"));
        assert!(!allowed("registry.example.com/acme/**", "registry.example.com/acmeevil/files"));
        assert!(!allowed("registry.example.com/acme/*", "evil.example.com/registry.example.com/acme/files"));
        assert!(allowed("mcp-fleet.local/*", "mcp-fleet.local/files:dev"));
        assert!(!allowed("*", "mcp-fleet.local/files:dev"));
    }

    #[test]
    fn a_port_is_no_tag() {
        assert!(allowed("localhost:5000/files", "localhost:5000/files:1"));
        assert!(!allowed("localhost", "localhost:5000/files:1"));
        assert!(allowed("localhost:5000/files", "localhost:5000/files"));
    }

    #[test]
    fn without_patterns_no_image_is_allowed() {
        assert!(image_problem(&images(&[], ReferencePolicy::Any), "files").is_some());
    }

    #[test]
    fn a_digest_is_wanted_where_the_tenant_wants_it() {
        let images = images(&["files"], ReferencePolicy::Digest);
        let digest = "a".repeat(64);
        assert!(image_problem(&images, &format!("files@sha256:{digest}")).is_none());
        assert!(image_problem(&images, &format!("files:1@sha256:{digest}")).is_none());
        let reason = |image: &str| image_problem(&images, image).map(|(reason, _)| reason);
        assert_eq!(reason("files:1"), Some(ConditionReason::ImageNotPinned));
        assert_eq!(reason("files@sha256:abc"), Some(ConditionReason::ImageNotPinned));
    }
}
