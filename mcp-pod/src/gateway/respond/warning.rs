//! Adds a warning to the result of a call, and leaves everything else in it as the server wrote it.

use std::ops::Range;

use mcp_fleet_policy::json::outline::{Member, is_name, members, trimmed};
use mcp_fleet_policy::json::write_str;

/// Returns a result with a text block at the end of `content`, and with `data` (JSON) in
/// `_meta["mcp-fleet.dev/warning"]`. `result` is one JSON object that was parsed before.
pub(crate) fn with_warning(result: &[u8], text: &str, data: &[u8]) -> Vec<u8> {
    let mut block = b"{\"type\":\"text\",\"text\":".to_vec();
    write_str(text, &mut block);
    block.push(b'}');
    let mut meta = b"\"mcp-fleet.dev/warning\":".to_vec();
    meta.extend_from_slice(data);

    let whole = trimmed(result);
    let members: Vec<Member> = members(result, whole.start).collect();
    let find = |name: &str, open: u8| {
        let member = members.iter().find(|member| is_name(result, &member.key, name))?;
        Some(member.value.clone()).filter(|value| result.get(value.start) == Some(&open))
    };
    let present = |name: &str| members.iter().any(|member| is_name(result, &member.key, name));
    // Insertions, each with its place in the result.
    let mut added: Vec<(usize, Vec<u8>)> = Vec::new();
    match find("content", b'[') {
        Some(value) => added.push(at_the_end(result, &value, block)),
        None if present("content") => {}
        None => added.push(at_the_end(result, &whole, [b"\"content\":[".as_slice(), &block, b"]"].concat())),
    }
    match find("_meta", b'{') {
        Some(value) => added.push(at_the_end(result, &value, meta)),
        None if present("_meta") => {}
        None => {
            let member = [b"\"_meta\":{".as_slice(), &meta, b"}"].concat();
            match added.iter_mut().find(|(place, _)| *place == whole.end - 1) {
                Some((_, before)) => before.extend([b",".as_slice(), &member].concat()),
                None => added.push(at_the_end(result, &whole, member)),
            }
        }
    }
    added.sort_by_key(|(place, _)| *place);
    let mut out = Vec::with_capacity(result.len() + block_length(&added));
    let mut from = 0;
    for (place, text) in added {
        out.extend_from_slice(&result[from..place]);
        out.extend_from_slice(&text);
        from = place;
    }
    out.extend_from_slice(&result[from..]);
    out
}

fn block_length(added: &[(usize, Vec<u8>)]) -> usize {
    added.iter().map(|(_, text)| text.len()).sum()
}

/// Returns where and how to add a last element or member to an array or object.
fn at_the_end(result: &[u8], value: &Range<usize>, element: Vec<u8>) -> (usize, Vec<u8>) {
    let end = value.end - 1;
    let is_empty = result[value.start + 1..end].trim_ascii().is_empty();
    (end, if is_empty { element } else { [b",".as_slice(), &element].concat() })
}

#[cfg(test)]
mod tests {
    use mcp_fleet_policy::json::{Limits, parse};

    use super::*;

    fn warned(result: &str) -> String {
        let text = with_warning(result.as_bytes(), "w \"1\"", b"{\"reason\":\"r\"}");
        let text = String::from_utf8(text).unwrap();
        parse(text.as_bytes(), &Limits::RESULT).unwrap_or_else(|error| panic!("{error}: {text}"));
        text
    }

    const BLOCK: &str = r#"{"type":"text","text":"w \"1\""}"#;
    const META: &str = r#""mcp-fleet.dev/warning":{"reason":"r"}"#;

    #[test]
    fn a_warning_is_the_last_block_and_a_member_of_meta() {
        let structured = r#""structuredContent":{"a":[1,2,{"b":"]}\""}]}"#;
        let all = format!(r#"{{"content":[{{"type":"text","text":"[\"x"}}], {structured},"_meta":{{"k":1}}}}"#);
        let expected = format!(
            r#"{{"content":[{{"type":"text","text":"[\"x"}},{BLOCK}], {structured},"_meta":{{"k":1,{META}}}}}"#
        );
        assert_eq!(warned(&all), expected);
    }

    #[test]
    fn missing_members_are_added() {
        assert_eq!(warned("{}"), format!(r#"{{"content":[{BLOCK}],"_meta":{{{META}}}}}"#));
        assert_eq!(warned(r#"{"a":1.5e3}"#), format!(r#"{{"a":1.5e3,"content":[{BLOCK}],"_meta":{{{META}}}}}"#));
        assert_eq!(
            warned(r#"{"_meta":{ },"content":[ ]}"#),
            format!(r#"{{"_meta":{{ {META}}},"content":[ {BLOCK}]}}"#)
        );
        assert_eq!(
            warned("{\"content\":[],\"n\":null}"),
            format!(r#"{{"content":[{BLOCK}],"n":null,"_meta":{{{META}}}}}"#)
        );
    }

    #[test]
    fn names_with_escapes_are_not_written_twice() {
        assert_eq!(
            warned(r#"{"c\u006fntent":[],"_met\u0061":{}}"#),
            format!(r#"{{"c\u006fntent":[{BLOCK}],"_met\u0061":{{{META}}}}}"#)
        );
        let other = r#"{"content":"text","nested":{"_meta":{},"content":[]}}"#;
        assert_eq!(warned(other), format!(r#"{},"_meta":{{{META}}}}}"#, &other[..other.len() - 1]));
    }
}
