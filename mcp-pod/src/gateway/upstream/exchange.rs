//! One call to a shim, and the events of its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connection::Connection;
use super::{Upstream, UpstreamError};
use crate::envelope::{CALL_PATH, EPOCH_HEADER, MEDIA_TYPE, Refusal};

/// Bytes that an answer may have beyond the result: its envelope, and the progress events before it.
const ENVELOPE_MARGIN: u64 = (1 << 20) + 64 * 1024;

/// Longest time that the end of a body may take after its last event.
const BODY_END_TIMEOUT: Duration = Duration::from_secs(1);

/// A call in flight. Dropping it closes the connection, which cancels the call.
#[derive(Debug)]
pub(crate) struct Exchange {
    upstream: Arc<Upstream>,
    connection: Connection,
    body: Incoming,
    buffer: BytesMut,
    /// Bytes that may still be read.
    remaining: u64,
}

/// One event of the answer. The JSON is what the shim wrote, not yet parsed.
#[derive(Debug)]
pub(crate) enum Event {
    Progress(Bytes),
    Result(Bytes),
    Error(Bytes),
    Refused(Refusal),
}

/// [`crate::envelope::ShimEvent`], borrowing from its line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum WireEvent<'a> {
    #[serde(borrow)]
    Progress(&'a RawValue),
    #[serde(borrow)]
    Result(&'a RawValue),
    #[serde(borrow)]
    Error(&'a RawValue),
    Refused(Refusal),
}

impl Upstream {
    /// Sends one request, on an idle connection if one is still open. Never sends a request twice.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<(Connection, Response<Incoming>), UpstreamError> {
        let length = body.len();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(path);
        let headers = request.headers_mut();
        headers.insert(HOST, http::HeaderValue::from_static("shim"));
        if length > 0 {
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(MEDIA_TYPE));
            headers.insert(CONTENT_LENGTH, http::HeaderValue::from(length));
        }
        while let Some(mut connection) = self.pool.take(Instant::now()) {
            if !connection.is_usable().await {
                continue;
            }
            match connection.send(request).await {
                Ok(response) => return Ok((connection, response)),
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(error),
            }
        }
        let mut connection = Connection::open(self.address, self.tls.clone()).await?;
        match connection.send(request).await {
            Ok(response) => Ok((connection, response)),
            Err((error, _)) => Err(error),
        }
    }

    /// Starts a call with the two lines of its envelope. `max_response` is the limit on the bytes of the result.
    pub(crate) async fn call(self: &Arc<Self>, lines: Bytes, max_response: u64) -> Result<Exchange, UpstreamError> {
        let (connection, response) = self.request(Method::POST, CALL_PATH, lines).await?;
        self.reports.note_epoch(epoch(response.headers()));
        if response.status() != StatusCode::OK {
            return Err(UpstreamError::Status(response.status()));
        }
        Ok(Exchange {
            upstream: Arc::clone(self),
            connection,
            body: response.into_body(),
            buffer: BytesMut::new(),
            remaining: max_response.saturating_add(ENVELOPE_MARGIN),
        })
    }
}

impl Exchange {
    /// Returns the next line of the answer, for [`Event::parse`].
    pub(crate) async fn next_line(&mut self) -> Result<Bytes, UpstreamError> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr(b'\n', &self.buffer[searched..]) {
                let line = self.buffer.split_to(searched + end + 1).freeze();
                return Ok(line);
            }
            searched = self.buffer.len();
            let Some(data) = self.connection.next_chunk(&mut self.body).await? else {
                return Err(UpstreamError::Malformed("the answer ended without a result"));
            };
            self.remaining = self.remaining.checked_sub(data.len() as u64).ok_or(UpstreamError::TooLarge)?;
            if self.buffer.is_empty() && memchr(b'\n', &data).is_some_and(|end| end + 1 == data.len()) {
                // A typical answer is one line in one chunk, which is not copied.
                return Ok(data);
            }
            if self.buffer.is_empty() {
                // Reserves the declared length once, but never more than may still be read.
                let declared = self.body.size_hint().exact().unwrap_or(0).min(self.remaining);
                self.buffer.reserve(data.len() + usize::try_from(declared).unwrap_or(0));
            }
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Ends the exchange after its last event. Returns the connection to the pool if nothing follows the event, without
    /// waiting for that.
    pub(crate) fn finish(mut self) {
        if !self.buffer.is_empty() {
            return;
        }
        match self.connection.next_chunk(&mut self.body).now_or_never() {
            Some(Ok(None)) => self.upstream.pool.put(self.connection, Instant::now()),
            // Data after the last event: the connection cannot be used again.
            Some(_) => {}
            // The end of a chunked body can arrive in a separate packet.
            None => drop(tokio::spawn(async move {
                let end = self.connection.next_chunk(&mut self.body);
                if let Ok(Ok(None)) = tokio::time::timeout(BODY_END_TIMEOUT, end).await {
                    self.upstream.pool.put(self.connection, Instant::now());
                }
            })),
        }
    }
}

impl Event {
    /// Parses one line of the answer.
    pub(crate) fn parse(line: &Bytes) -> Result<Self, UpstreamError> {
        // A result is only cut out of its frame here. It is parsed to its last byte before it is released, which
        // rejects anything but one value.
        let framed = line.strip_prefix(b"{\"result\":").and_then(|rest| rest.strip_suffix(b"}\n"));
        if let Some(result) = framed {
            return Ok(Self::Result(line.slice_ref(result)));
        }
        let raw = |value: &RawValue| line.slice_ref(value.get().as_bytes());
        match serde_json::from_slice(line) {
            Ok(WireEvent::Progress(params)) => Ok(Self::Progress(raw(params))),
            Ok(WireEvent::Result(result)) => Ok(Self::Result(raw(result))),
            Ok(WireEvent::Error(error)) => Ok(Self::Error(raw(error))),
            Ok(WireEvent::Refused(refusal)) => Ok(Self::Refused(refusal)),
            Err(_) => Err(UpstreamError::Malformed("a line is not an event")),
        }
    }
}

/// Returns the epoch of the server behind the shim.
pub(super) fn epoch(headers: &HeaderMap) -> Option<u64> {
    headers.get(EPOCH_HEADER)?.to_str().ok()?.parse().ok()
}
