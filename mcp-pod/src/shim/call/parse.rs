//! Parses the body of a call: the header line and the line of params.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::envelope::{CallHeader, VERSION};

/// Why the body of a call was not accepted.
#[derive(Debug, thiserror::Error)]
pub(in crate::shim) enum EnvelopeRejection {
    #[error("failed to read the header line")]
    Header(#[from] serde_json::Error),
    #[error("failed to use the header: version {0}, not {VERSION}")]
    Version(u32),
    #[error("failed to read the params: they are not one line of JSON in UTF-8")]
    Params,
}

/// Splits the body into the header and the params. The gateway has validated the params; here they only must be one
/// line, so that the server cannot read them as two messages. Some servers end a line at a bare carriage return.
pub(super) fn split(body: &[u8]) -> Result<(CallHeader, &[u8]), EnvelopeRejection> {
    let end = memchr::memchr(b'\n', body).ok_or(EnvelopeRejection::Params)?;
    let (header, params) = body.split_at(end);
    let params = params.strip_prefix(b"\n").unwrap_or(params);
    let params = params.strip_suffix(b"\n").unwrap_or(params);
    let header: CallHeader = serde_json::from_slice(header)?;
    if header.version != VERSION {
        return Err(EnvelopeRejection::Version(header.version));
    }
    let one_line = memchr::memchr2(b'\n', b'\r', params).is_none() && std::str::from_utf8(params).is_ok();
    if !one_line || !params.starts_with(b"{") || !params.ends_with(b"}") {
        return Err(EnvelopeRejection::Params);
    }
    Ok((header, params))
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Adds a progress token to `_meta` in the params, and the members `added`, and returns the text before and after the token.
/// Members that are there already are replaced: they are the caller's and have no meaning for this server.
pub(super) fn split_at_token(params: &[u8], added: &str) -> Result<(String, String), EnvelopeRejection> {
    let (meta, members) = take_meta(params, added)?;
    Ok((r#"{"_meta":{"progressToken":"#.to_owned(), after_first_member(&meta) + &after_first_member(&members)))
}

/// Adds the members `added` to `_meta` in the params.
pub(super) fn with_meta(params: &[u8], added: &str) -> Result<String, EnvelopeRejection> {
    let (meta, members) = take_meta(params, added)?;
    Ok(format!("{{\"_meta\":{meta}{}", after_first_member(&members)))
}

/// Returns `_meta` of the params, with the members `added` and without a progress token, and the other params.
fn take_meta(params: &[u8], added: &str) -> Result<(String, String), EnvelopeRejection> {
    let mut members: Members<'_> = serde_json::from_slice(params)?;
    let mut meta: Members<'_> = match members.remove("_meta") {
        Some(meta) => serde_json::from_str(meta.get())?,
        None => Members::new(),
    };
    meta.remove("progressToken");
    let added = format!("{{{added}}}");
    meta.extend(serde_json::from_str::<Members<'_>>(&added)?);
    Ok((serde_json::to_string(&meta)?, serde_json::to_string(&members)?))
}

/// Returns how the text of an object goes on after another first member.
fn after_first_member(object: &str) -> String {
    match object.strip_prefix('{') {
        Some("}") | None => "}".to_owned(),
        Some(members) => format!(",{members}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HEADER: &str = r#"{"version":1,"call":"c","principal":"p","timeoutMs":1,"maxResponse":1,"progress":false}"#;

    #[test]
    fn the_envelope_is_two_lines_and_nothing_else() {
        let split =
            |body: String| split(body.as_bytes()).map(|(_, params)| String::from_utf8_lossy(params).into_owned());
        assert_eq!(split(format!("{HEADER}\n{{}}\n")).unwrap(), "{}");
        assert_eq!(split(format!("{HEADER}\n{{}}")).unwrap(), "{}");
        for bad in [
            format!("{HEADER}\n"),
            HEADER.to_owned(),
            format!("{HEADER}\n{{}}\n{{}}\n"),
            format!("{HEADER}\n{{\r}}\n"),
            format!("{HEADER}\n[]\n"),
            format!("{}\n{{}}\n", HEADER.replace("\"version\":1", "\"version\":2")),
            format!("{}\n{{}}\n", HEADER.replace("\"call\"", "\"surprise\":1,\"call\"")),
        ] {
            assert!(split(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_progress_token_of_our_own_replaces_any_other() {
        for (params, expected) in [
            ("{}", r#"{"_meta":{"progressToken":#}}"#),
            (r#"{"name":"a"}"#, r#"{"_meta":{"progressToken":#},"name":"a"}"#),
            (
                r#"{"name":"a","_meta":{"x":1,"progressToken":"p"}}"#,
                r#"{"_meta":{"progressToken":#,"x":1},"name":"a"}"#,
            ),
        ] {
            let (before, after) = split_at_token(params.as_bytes(), "").unwrap();
            assert_eq!(format!("{before}#{after}"), expected);
        }
    }

    #[test]
    fn what_a_revision_asks_for_replaces_what_the_caller_sent() {
        let params = br#"{"name":"a","_meta":{"v":"the caller's","x":1,"progressToken":"p"}}"#;
        assert_eq!(with_meta(params, r#""v":2"#).unwrap(), r#"{"_meta":{"v":2,"x":1},"name":"a"}"#);
        assert_eq!(with_meta(b"{}", r#""v":2"#).unwrap(), r#"{"_meta":{"v":2}}"#);
        let (before, after) = split_at_token(params, r#""v":2"#).unwrap();
        assert_eq!(format!("{before}#{after}"), r#"{"_meta":{"progressToken":#,"v":2,"x":1},"name":"a"}"#);
    }
}
