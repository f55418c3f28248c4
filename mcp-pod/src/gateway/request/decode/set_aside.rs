//! Calls whose arguments cannot be read: the rest of their message still says who is to learn that.

use std::sync::OnceLock;

use mcp_fleet_policy::json::outline;
use mcp_fleet_policy::unreadable::Unreadable;

use super::{InvalidMessage, Message, TOOLS_CALL, read_metered_message};

/// A message without the arguments that cannot be read. It is refused, and only answered like any other call.
#[derive(Debug)]
pub(crate) struct SetAside {
    /// The message, with `{}` in place of its arguments.
    rest: Vec<u8>,
    unreadable: Unreadable,
}

/// Reads one message. If only the arguments of a call cannot be read, returns the message without them and what is wrong
/// with them, which `set_aside` then holds.
pub(crate) fn read_message_or_rest<'a>(
    body: &'a [u8],
    set_aside: &'a OnceLock<SetAside>,
    free: usize,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<(Message<'a>, Option<&'a Unreadable>), InvalidMessage> {
    let invalid = match read_metered_message(body, free, reserve) {
        Ok(message) => return Ok((message, None)),
        Err(invalid) => invalid,
    };
    let Some(found) = SetAside::find(body, &invalid) else { return Err(invalid) };
    let SetAside { rest, unreadable } = set_aside.get_or_init(|| found);
    match read_metered_message(rest, free, reserve) {
        Ok(message) if message.method == TOOLS_CALL && message.id.is_some() => Ok((message, Some(unreadable))),
        _ => Err(invalid),
    }
}

impl SetAside {
    fn find(body: &[u8], invalid: &InvalidMessage) -> Option<Self> {
        let error = invalid.error?;
        let params = outline::find(body, outline::trimmed(body).start, "params")?;
        let arguments = outline::find(body, params.start, "arguments")?;
        let unreadable = Unreadable::find(body, &arguments, error)?;
        let rest = [body.get(..arguments.start)?, b"{}", body.get(arguments.end..)?].concat();
        Some(Self { rest, unreadable })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(body: &str) -> Result<(String, Option<String>), i32> {
        let set_aside = OnceLock::new();
        let (message, unreadable) = read_message_or_rest(body.as_bytes(), &set_aside, usize::MAX, &mut |_| false)
            .map_err(|invalid| invalid.code)?;
        Ok((message.method, unreadable.map(|unreadable| unreadable.denial(|_| false).limit.unwrap())))
    }

    fn call(arguments: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#)
    }

    #[test]
    fn only_the_arguments_of_a_call_are_set_aside() {
        assert_eq!(read(&call("{}")).unwrap(), ("tools/call".into(), None));
        let (_, limit) = read(&call(r#"{"a":{"b":1e400}}"#)).unwrap();
        assert!(limit.unwrap().starts_with("argument `a.b` must"));
        for body in [
            call(r#"{"a":1e400}"#).replace("tools/call", "tools/list"),
            call(r#"{"a":1e400}"#).replace(r#""id":1,"#, ""),
            call(r#"{"a":1e400}"#).replace(r#""id":1"#, r#""id":1e400"#),
            call(r#"{"a":1e400}"#).replace(r#""name":"t""#, r#""name":"t","arguments":{}"#),
            call(r#"{"a":1e400}"#).replace(r#""name":"t""#, r#""name":"t","name":"u""#),
            call(r#"{"a":1e400"#),
            call("{}").replace(r#""t""#, "1e400"),
            call(r#"{"a":1e400}"#) + "{}",
        ] {
            assert!(read(&body).is_err(), "{body}");
        }
    }
}
