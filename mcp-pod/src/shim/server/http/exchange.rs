//! One HTTP request to a server, and the messages in its response.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::uri::{Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use mcp_fleet_policy::reason::Reason;
use serde::Deserialize;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::frame::Frame;
use super::super::rpc::{Answers, MODERN, RequestOutcome};
use super::Server;
use super::events::{Events, Found};

pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const REVISION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON_OR_EVENTS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
/// Largest body of an error, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;
/// Largest response to a request that begins a session again, in bytes.
const MAX_RESULT: usize = 4 << 20;
/// Messages that a batch may have.
const MAX_BATCH: usize = 100;
/// Revisions in which a server may send several messages at once.
const REVISIONS_WITH_BATCHES: [&str; 2] = ["2025-03-26", "2024-11-05"];
/// An event of more bytes than this is taken for one without an end.
pub(super) const MAX_EVENT: u64 = 1 << 30;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("the server does not listen on its port")]
    Refused,
    #[error("the server does not accept connections")]
    Unreachable,
    #[error("the connection to the server was lost")]
    Lost,
    #[error("the server answered with HTTP status {0}")]
    Status(StatusCode),
    #[error("the server answered with HTTP status {0}, a redirect, which is not followed")]
    Redirect(StatusCode),
    #[error("the answer is neither JSON nor an event stream")]
    ContentType,
    #[error("the server ended its response without an answer to the request")]
    NoAnswer,
    #[error("the server wrote an event without an end")]
    Endless,
}

impl ExchangeError {
    /// Returns what a status says that is no success.
    pub(super) fn of_status(status: StatusCode) -> Self {
        if status.is_redirection() { Self::Redirect(status) } else { Self::Status(status) }
    }

    /// Returns how the request ended that has no answer.
    pub(super) fn outcome(self) -> RequestOutcome {
        let reason = match self {
            Self::Refused | Self::Unreachable | Self::Lost => Reason::UpstreamUnavailable,
            _ => Reason::UpstreamInvalid,
        };
        let forwarded = !matches!(self, Self::Refused | Self::Unreachable);
        RequestOutcome::Failed { reason, detail: self.to_string(), forwarded }
    }
}

impl Server {
    /// Sends a message to `path`, with `session` as the id of the session.
    pub(super) async fn post(
        &self,
        path: &PathAndQuery,
        message: Bytes,
        session: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let mut headers = self.revision_headers(&message);
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ACCEPT, JSON_OR_EVENTS);
        headers.extend(session.map(|session| (SESSION, session.clone())));
        self.send(Method::POST, path, headers, message).await
    }

    /// Asks for an event stream at `path`, after the event with the id `last` if there is one.
    pub(super) async fn get_events(
        &self,
        path: &PathAndQuery,
        session: Option<&HeaderValue>,
        last: Option<&Bytes>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let mut headers = self.revision_headers(b"");
        headers.insert(ACCEPT, EVENTS);
        headers.extend(session.map(|session| (SESSION, session.clone())));
        let last = last.and_then(|last| HeaderValue::from_bytes(last).ok());
        headers.extend(last.map(|last| (LAST_EVENT, last)));
        self.send(Method::GET, path, headers, Bytes::new()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &PathAndQuery,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let mut uri = Parts::default();
        (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(self.authority.clone()));
        uri.path_and_query = Some(path.clone());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| ExchangeError::Unreachable)?;
        *request.headers_mut() = headers;
        self.http.request(request).await.map_err(|error| match error.is_connect() {
            true if is_refused(&error) => ExchangeError::Refused,
            true => ExchangeError::Unreachable,
            false => ExchangeError::Lost,
        })
    }

    /// Returns the headers that the revision asks for with a message ("Streamable HTTP" of MCP 2025-06-18 and 2026-07-28).
    fn revision_headers(&self, message: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(revision) = self.rpc.revision() else { return headers };
        headers.insert(REVISION, HeaderValue::from_static(revision));
        if revision == MODERN
            && let Ok(Message { method, params }) = serde_json::from_slice(message)
        {
            headers.extend(HeaderValue::from_str(&method).ok().map(|method| (METHOD, method)));
            headers.extend(params.and_then(|params| params.name).map(|name| (NAME, encoded(&name))));
        }
        headers
    }

    /// Dispatches the messages of a response. Returns when the request `id` has ended, with the rest of the response, or when
    /// the response has.
    pub(super) async fn read(
        &self,
        response: Response<Incoming>,
        id: Option<u64>,
        events: &mut Events,
    ) -> Result<Option<Incoming>, ExchangeError> {
        let (head, body) = response.into_parts();
        let is = |form: &str| {
            let named = head.headers.get(CONTENT_TYPE).and_then(|form| form.to_str().ok()).unwrap_or_default();
            named.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(form)
        };
        if !head.status.is_success() {
            return self.read_error(head.status, is("application/json"), body, id).await;
        }
        if is("text/event-stream") {
            return self.read_events(body, id, events).await;
        }
        let Some(id) = id else { return Err(ExchangeError::ContentType) };
        if head.status == StatusCode::ACCEPTED || head.status == StatusCode::NO_CONTENT {
            return Err(ExchangeError::NoAnswer);
        }
        if !is("application/json") {
            return Err(ExchangeError::ContentType);
        }
        match Limited::new(body, self.rpc.max_answer(id)).collect().await {
            Ok(body) => self.dispatch(body.to_bytes(), Answers::To(id)),
            Err(error) if error.is::<LengthLimitError>() => self.rpc.fail(id, RequestOutcome::TooLarge),
            Err(_) => return Err(ExchangeError::Lost),
        }
        if self.rpc.is_pending(id) { Err(ExchangeError::NoAnswer) } else { Ok(None) }
    }

    /// Dispatches the messages of an event stream. Returns when the request `id` has ended, or when the stream has.
    async fn read_events(
        &self,
        mut body: Incoming,
        id: Option<u64>,
        events: &mut Events,
    ) -> Result<Option<Incoming>, ExchangeError> {
        let is_over = || id.is_some_and(|id| !self.rpc.is_pending(id));
        let answers = id.map_or(Answers::None, Answers::To);
        let mut lost_one = false;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame.map_err(drop) else { break };
            let Ok(chunk) = frame.into_data() else { continue };
            events.add(&chunk);
            let limit = || id.map_or_else(|| self.rpc.max_line(), |id| self.rpc.max_answer(id));
            while let Some(found) = events.next(limit()) {
                match found {
                    Found::Event(event) if event.is_message() => self.dispatch(event.data, answers),
                    Found::Event(_) => {}
                    Found::TooLong(found) => match id.filter(|id| found == Some(*id)) {
                        Some(id) => self.rpc.fail(id, RequestOutcome::TooLarge),
                        // It may have been the answer, or not.
                        None => lost_one = true,
                    },
                }
            }
            if is_over() {
                return Ok(Some(body));
            }
            if events.unended() > MAX_EVENT {
                return Err(ExchangeError::Endless);
            }
        }
        if let Some(id) = id.filter(|_| lost_one) {
            self.rpc.fail(id, RequestOutcome::TooLarge);
        }
        if id.is_none() || is_over() { Ok(None) } else { Err(ExchangeError::NoAnswer) }
    }

    /// Ends the request `id` with the JSON-RPC error in a response, if there is one.
    async fn read_error(
        &self,
        status: StatusCode,
        is_json: bool,
        body: Incoming,
        id: Option<u64>,
    ) -> Result<Option<Incoming>, ExchangeError> {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            error: &'a RawValue,
        }
        let failed = ExchangeError::of_status(status);
        let Some(id) = id.filter(|_| is_json) else { return Err(failed) };
        let body = Limited::new(body, MAX_ERROR_BODY).collect().await.map_err(|_| failed)?.to_bytes();
        let body = one_line(body);
        // Its id may be null: the server need not have read the request.
        let message = serde_json::from_slice::<Message<'_>>(&body).ok();
        let error = message.filter(|message| message.error.get().starts_with('{')).ok_or(failed)?;
        self.rpc.fail(id, RequestOutcome::Error(body.slice_ref(error.error.get().as_bytes())));
        Ok(None)
    }

    /// Reads a response up to the `result` of a request that is not in flight any more.
    pub(super) async fn read_result(&self, response: Response<Incoming>) -> Result<Bytes, ExchangeError> {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            result: &'a RawValue,
        }
        let result = |text: Bytes| {
            let message = serde_json::from_slice::<Message<'_>>(&text).ok()?;
            Some(text.slice_ref(message.result.get().as_bytes()))
        };
        if !response.status().is_success() {
            return Err(ExchangeError::of_status(response.status()));
        }
        let mut body = Limited::new(response.into_body(), MAX_RESULT);
        let (mut text, mut events) = (Vec::new(), Events::default());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ExchangeError::Lost)?;
            let Ok(chunk) = frame.into_data() else { continue };
            text.extend_from_slice(&chunk);
            events.add(&chunk);
            while let Some(found) = events.next(MAX_RESULT) {
                if let Found::Event(event) = found
                    && let Some(result) = result(event.data)
                {
                    return Ok(result);
                }
            }
        }
        result(text.into()).ok_or(ExchangeError::NoAnswer)
    }

    /// Dispatches a message of the server, or several where the revision has that. Other text is ignored.
    pub(super) fn dispatch(&self, text: Bytes, answers: Answers) {
        let text = one_line(text);
        let may_be_batch = self.rpc.revision().is_some_and(|revision| REVISIONS_WITH_BATCHES.contains(&revision));
        if may_be_batch && text.trim_ascii_start().starts_with(b"[") {
            let Ok(Batch(messages)) = serde_json::from_slice(&text) else { return };
            for message in messages {
                drop(self.rpc.dispatch_from(Frame::Line(text.slice_ref(message.get().as_bytes())), answers));
            }
        } else {
            drop(self.rpc.dispatch_from(Frame::Line(text), answers));
        }
    }
}

/// Whether nobody listens at the other end.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Several messages at once, at most [`MAX_BATCH`].
struct Batch<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Messages;
        impl<'de> Visitor<'de> for Messages {
            type Value = Batch<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_BATCH} messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut messages = Vec::new();
                while let Some(message) = list.next_element()? {
                    if messages.len() == MAX_BATCH {
                        return Err(A::Error::invalid_length(MAX_BATCH + 1, &self));
                    }
                    messages.push(message);
                }
                Ok(Batch(messages))
            }
        }
        deserializer.deserialize_seq(Messages)
    }
}

/// What the headers of a message repeat.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

/// Returns a text as the value of a header, encoded if it has other characters than a header may have.
fn encoded(text: &str) -> HeaderValue {
    let is_plain = !text.starts_with([' ', '\t'])
        && !text.ends_with([' ', '\t'])
        && !text.starts_with("=?base64?")
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let plain = is_plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    plain.unwrap_or_else(|| {
        let encoded = format!("=?base64?{}?=", STANDARD.encode(text));
        HeaderValue::from_str(&encoded).unwrap_or(HeaderValue::from_static(""))
    })
}

/// Returns JSON on one line, as a server on pipes writes it. No string in JSON contains the end of a line.
fn one_line(text: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &text).is_none() {
        return text;
    }
    text.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_that_no_header_may_have_are_encoded() {
        for (name, expected) in [
            ("read_file", "read_file"),
            ("été", "=?base64?w6l0w6k=?="),
            (" a", "=?base64?IGE=?="),
            ("a\r\nb", "=?base64?YQ0KYg==?="),
            ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
        ] {
            assert_eq!(encoded(name).to_str().unwrap(), expected);
        }
    }

    #[test]
    fn a_batch_has_a_limit() {
        let batch = |number: usize| {
            let text = format!("[{}]", vec!["0"; number].join(","));
            serde_json::from_str::<Batch<'_>>(&text).map(|Batch(messages)| messages.len()).ok()
        };
        assert_eq!((batch(0), batch(MAX_BATCH), batch(MAX_BATCH + 1)), (Some(0), Some(MAX_BATCH), None));
    }

    #[test]
    fn json_is_put_on_one_line() {
        assert_eq!(one_line(Bytes::from_static(b"{\r\n \"a\\n\": 1\n}")), &b"{   \"a\\n\": 1 }"[..]);
    }
}
