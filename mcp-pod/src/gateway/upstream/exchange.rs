//! One call to a shim, and the events that answer it.

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

/// Room for the envelope around a result of the largest size, and for progress before it.
const MARGIN: u64 = (1 << 20) + 64 * 1024;

/// How long the end of a body may take after its last event.
const ENDING: Duration = Duration::from_secs(1);

/// A call in flight. Dropping it closes the connection, which cancels the call.
#[derive(Debug)]
pub(crate) struct Exchange {
    upstream: Arc<Upstream>,
    connection: Connection,
    body: Incoming,
    buffer: BytesMut,
    left: u64,
}

/// One event of the answer; JSON as the shim wrote it, not yet looked at.
#[derive(Debug)]
pub(crate) enum Event {
    Progress(Bytes),
    Result(Bytes),
    Error(Bytes),
    Refused(Refusal),
}

/// [`crate::envelope::ShimEvent`], borrowing the line it stands in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Wire<'a> {
    #[serde(borrow)]
    Progress(&'a RawValue),
    #[serde(borrow)]
    Result(&'a RawValue),
    #[serde(borrow)]
    Error(&'a RawValue),
    Refused(Refusal),
}

impl Upstream {
    /// Sends one request, on an idle connection if there is one that still lives. What was sent is never sent again.
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
            if !connection.usable().await {
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

    /// Starts a call; `lines` are its two lines. `max_response` bounds what is read of the answer.
    pub(crate) async fn call(self: &Arc<Self>, lines: Bytes, max_response: u64) -> Result<Exchange, UpstreamError> {
        let (connection, response) = self.request(Method::POST, CALL_PATH, lines).await?;
        self.report.seen(epoch(response.headers()));
        if response.status() != StatusCode::OK {
            return Err(UpstreamError::Status(response.status()));
        }
        Ok(Exchange {
            upstream: Arc::clone(self),
            connection,
            body: response.into_body(),
            buffer: BytesMut::new(),
            left: max_response.saturating_add(MARGIN),
        })
    }
}

impl Exchange {
    /// The next line of the answer, to be read with [`Event::read`].
    pub(crate) async fn line(&mut self) -> Result<Bytes, UpstreamError> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr(b'\n', &self.buffer[searched..]) {
                let line = self.buffer.split_to(searched + end + 1).freeze();
                return Ok(line);
            }
            searched = self.buffer.len();
            let Some(data) = self.connection.data(&mut self.body).await? else {
                return Err(UpstreamError::Form("the answer ended without a result"));
            };
            self.left = self.left.checked_sub(data.len() as u64).ok_or(UpstreamError::TooLarge)?;
            if self.buffer.is_empty() && memchr(b'\n', &data).is_some_and(|end| end + 1 == data.len()) {
                // The usual answer is one line in one piece, and not copied.
                return Ok(data);
            }
            if self.buffer.is_empty() {
                // What the shim said beforehand is reserved once; it is within the limit, or refused further on.
                let said = self.body.size_hint().exact().unwrap_or(0).min(self.left);
                self.buffer.reserve(data.len() + usize::try_from(said).unwrap_or(0));
            }
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Ends the exchange after its last event: the connection goes back to the pool if nothing follows. Nobody waits
    /// for that.
    pub(crate) fn finish(mut self) {
        if !self.buffer.is_empty() {
            return;
        }
        match self.connection.data(&mut self.body).now_or_never() {
            Some(Ok(None)) => self.upstream.pool.put(self.connection, Instant::now()),
            // More than was agreed: not a connection to use again.
            Some(_) => {}
            // The end of a chunked body can come in a packet of its own.
            None => drop(tokio::spawn(async move {
                let end = self.connection.data(&mut self.body);
                if let Ok(Ok(None)) = tokio::time::timeout(ENDING, end).await {
                    self.upstream.pool.put(self.connection, Instant::now());
                }
            })),
        }
    }
}

impl Event {
    /// Reads one line.
    pub(crate) fn read(line: &Bytes) -> Result<Self, UpstreamError> {
        // The usual event is taken apart by its frame alone: whoever releases a result reads it to the last byte, and
        // finds out if what stands between is not one value.
        let framed = line.strip_prefix(b"{\"result\":").and_then(|rest| rest.strip_suffix(b"}\n"));
        if let Some(result) = framed {
            return Ok(Self::Result(line.slice_ref(result)));
        }
        let raw = |value: &RawValue| line.slice_ref(value.get().as_bytes());
        match serde_json::from_slice(line) {
            Ok(Wire::Progress(params)) => Ok(Self::Progress(raw(params))),
            Ok(Wire::Result(result)) => Ok(Self::Result(raw(result))),
            Ok(Wire::Error(error)) => Ok(Self::Error(raw(error))),
            Ok(Wire::Refused(refusal)) => Ok(Self::Refused(refusal)),
            Err(_) => Err(UpstreamError::Form("an event that is not one")),
        }
    }
}

/// The epoch of the server behind the shim.
pub(super) fn epoch(headers: &HeaderMap) -> Option<u64> {
    headers.get(EPOCH_HEADER)?.to_str().ok()?.parse().ok()
}
