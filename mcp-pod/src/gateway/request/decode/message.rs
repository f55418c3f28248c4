//! The JSON-RPC envelope, read strictly as one request or one notification.

use mcp_fleet_policy::json::{Limits, Members, ParseError, Value, outline, parse, parse_metered, write_str};

/// Bytes of the longest id or progress token. It is kept while its call runs, and every progress event repeats it.
pub(super) const MAX_ID_LENGTH: usize = 256;

/// The id of a request, a string or an integer, stored as JSON so that the answer repeats it exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(Vec<u8>);

/// Why a value is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdError {
    /// It is neither a string nor a whole number.
    Type,
    /// It has more than [`MAX_ID_LENGTH`] bytes.
    TooLong,
}

impl Id {
    /// Returns the id as JSON text.
    pub(crate) fn as_json(&self) -> &[u8] {
        &self.0
    }

    /// Returns the value as an id.
    pub(crate) fn from_value(value: &Value<'_>) -> Result<Self, IdError> {
        let mut json = Vec::with_capacity(16);
        match value {
            Value::String(text) if text.len() > MAX_ID_LENGTH => return Err(IdError::TooLong),
            Value::String(text) => write_str(text, &mut json),
            Value::Integer(number) => json.extend_from_slice(number.to_string().as_bytes()),
            _ => return Err(IdError::Type),
        }
        Ok(Self(json))
    }

    /// Returns the id of a message that cannot be parsed, if it is clear which one it is. Only a refusal repeats it.
    pub(crate) fn of_rejected(body: &[u8]) -> Option<Self> {
        let id = outline::find(body, outline::trimmed(body).start, "id")?;
        let text = body.get(id)?.trim_ascii();
        match parse(text, &Limits::REQUEST) {
            Ok(value) => Self::from_value(&value).ok(),
            // A whole number that is too large to be read by everyone is still told apart by its digits.
            Err(_) => is_whole_number(text).then(|| Self(text.to_vec())),
        }
    }
}

fn is_whole_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    text.len() <= MAX_ID_LENGTH
        && !digits.starts_with(b"0")
        && !digits.is_empty()
        && digits.iter().all(u8::is_ascii_digit)
}

/// One message of a client.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// Absent in a notification.
    pub(crate) id: Option<Id>,
    pub(crate) method: String,
    pub(crate) params: Members<'a>,
}

/// Why a body is not a valid message.
#[derive(Debug)]
pub(crate) struct InvalidMessage {
    /// The id to answer with, if one could be read.
    pub(crate) id: Option<Id>,
    /// JSON-RPC error code: −32600 for JSON that is not a message, −32700 for anything but JSON that every parser reads
    /// alike.
    pub(crate) code: i32,
    /// Error text for the caller. Contains nothing that the caller sent.
    pub(crate) text: String,
    /// Why the body cannot be parsed, if it cannot.
    pub(crate) error: Option<ParseError>,
}

/// Reads one message from a body, without a limit on memory.
#[cfg(test)]
pub(crate) fn read_message(body: &[u8]) -> Result<Message<'_>, InvalidMessage> {
    read_metered_message(body, usize::MAX, &mut |_| false)
}

/// Reads one message from a body. Requests memory for more than `free` values ([`parse_metered`]).
pub(crate) fn read_metered_message<'a>(
    body: &'a [u8],
    free: usize,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Message<'a>, InvalidMessage> {
    let value = parse_metered(body, &Limits::REQUEST, free, reserve).map_err(|error| InvalidMessage {
        id: Id::of_rejected(body),
        code: -32700,
        text: format!("Parse error: {error}"),
        error: Some(error),
    })?;
    let members = match value {
        Value::Object(members) => members,
        Value::Array(_) => return Err(invalid(None, "batches are not offered: send one message")),
        _ => return Err(invalid(None, "a message is an object")),
    };
    let mut version = None;
    let mut id = None;
    let mut method = None;
    let mut params = None;
    let mut other = false;
    for (name, value) in members {
        match &*name {
            "jsonrpc" => version = Some(value),
            "id" => id = Some(value),
            "method" => method = Some(value),
            "params" => params = Some(value),
            _ => other = true,
        }
    }
    // Read the id first: errors about the other members are answered with it.
    let id = id.as_ref().map(Id::from_value).transpose().map_err(|error| match error {
        IdError::Type => invalid(None, "an id is a string or a whole number"),
        // An id that is too long is not repeated either.
        IdError::TooLong => invalid(None, "an id has at most 256 bytes"),
    })?;
    if version.as_ref().and_then(Value::as_str) != Some("2.0") {
        return Err(invalid(id, "jsonrpc must be \"2.0\""));
    }
    let Some(Value::String(method)) = method else {
        return Err(invalid(id, "a message has a method; responses are not expected"));
    };
    if other {
        return Err(invalid(id, "a message has no members but jsonrpc, id, method and params"));
    }
    let params = match params {
        None | Some(Value::Null) => Members::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(invalid(id, "params must be an object")),
    };
    Ok(Message { id, method: method.into_owned(), params })
}

fn invalid(id: Option<Id>, text: &str) -> InvalidMessage {
    InvalidMessage { id, code: -32600, text: format!("Invalid request: {text}"), error: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn id(body: &str) -> String {
        String::from_utf8(read_message(body.as_bytes()).unwrap().id.unwrap().as_json().to_vec()).unwrap()
    }

    #[test]
    fn ids_are_repeated_exactly() {
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#), "7");
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":-9007199254740991,"method":"ping"}"#), "-9007199254740991");
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":"7","method":"ping"}"#), r#""7""#);
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":"a\"\u00e9","method":"ping"}"#), "\"a\\\"é\"");
        assert!(read_message(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).unwrap().id.is_none());
    }

    #[test]
    fn an_id_has_at_most_256_bytes() {
        let body = |text: &str| format!(r#"{{"jsonrpc":"2.0","id":"{text}","method":"ping"}}"#);
        for text in ["x".repeat(256), "é".repeat(128), "\\u0001".repeat(256)] {
            assert!(read_message(body(&text).as_bytes()).unwrap().id.is_some());
        }
        for text in ["x".repeat(257), "é".repeat(129), "\\u0001".repeat(257), "x".repeat(100_000)] {
            let error = read_message(body(&text).as_bytes()).unwrap_err();
            assert_eq!((error.id, error.code), (None, -32600));
            assert_eq!(error.text, "Invalid request: an id has at most 256 bytes");
        }
    }

    #[test]
    fn everything_but_one_message_is_rejected() {
        let deep =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
        for body in [
            "",
            "null",
            "[]",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":1e400}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\ud800"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":{"b":1,"\u0062":2}}}"#,
            &deep,
        ] {
            assert!(read_message(body.as_bytes()).is_err(), "{body:.80} was accepted");
        }
        assert!(read_message(b"\xff\xfe{}").is_err());
    }

    #[test]
    fn an_error_carries_the_id_if_it_can_be_read() {
        let error = read_message(br#"{"jsonrpc":"1.0","id":"x","method":"ping"}"#).unwrap_err();
        assert_eq!((error.code, error.id.unwrap().as_json()), (-32600, &br#""x""#[..]));
        assert_eq!(read_message(b"{").unwrap_err().code, -32700);
        let told = |body: &str| {
            read_message(body.as_bytes()).unwrap_err().id.map(|id| String::from_utf8(id.as_json().to_vec()).unwrap())
        };
        assert_eq!(told(r#"{"params":{"a":1e400},"id":"\u0078","method":"a"}"#).as_deref(), Some(r#""x""#));
        assert_eq!(told(r#"{"id":725653563933458432,"method":"a"}"#).as_deref(), Some("725653563933458432"));
        assert_eq!(told(r#"{"id":7,"method":"a""#).as_deref(), Some("7"));
        for untold in [r#"{"id":7,"id":7}"#, r#"{"id":1e400}"#, r#"{"id":[9007199254740993]}"#, r#"[{"id":1}] x"#] {
            assert_eq!(told(untold), None, "{untold}");
        }
    }

    #[test]
    fn null_parameters_are_none() {
        assert!(
            read_message(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":null}"#).unwrap().params.is_empty()
        );
    }
}
