//! What an agent gets as its credential.

use jiff::Timestamp;

/// Returns what an agent gets, by name. The first URL is that of the gateway in the cluster, the other one that under
/// its public name, if there is one. The times are Unix seconds.
pub fn entries(
    ca: &str,
    (url, public_url): (&str, Option<&str>),
    token: &str,
    expires_at: i64,
    rotates_at: i64,
) -> Vec<(&'static str, String)> {
    let mut entries = vec![
        ("token", token.to_owned()),
        ("url", url.to_owned()),
        ("expiresAt", rfc3339(expires_at)),
        ("rotatesAt", rfc3339(rotates_at)),
        ("ca.crt", ca.to_owned()),
    ];
    entries.extend(public_url.map(|url| ("publicUrl", url.to_owned())));
    entries
}

/// Formats a Unix second as RFC 3339, in UTC.
fn rfc3339(second: i64) -> String {
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}
