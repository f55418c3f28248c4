//! One call to a shim, and the events of its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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
use ulid::Ulid;

use super::connection::{Connection, HandOverError, Head};
use super::pod::Pod;
use super::{Upstream, UpstreamError};
use crate::envelope::{CALL_PATH, CANCEL_PATH, EPOCH_HEADER, MEDIA_TYPE, Refusal};
use crate::gateway::memory::{self, Account, Reservation};

/// Bytes that an answer may have beyond the result: its envelope, and the progress events before it.
const ENVELOPE_MARGIN: u64 = (1 << 20) + 64 * 1024;

/// Bytes of an answer for which no memory is reserved, because its connection has it.
const UNCOUNTED: usize = 16 * 1024;
/// Length of an answer for which memory is first reserved if its length is not declared.
const FIRST_RESERVED: usize = 64 * 1024;
/// Bytes that an event has beyond its result.
const FRAME: usize = 64;

/// Longest time that the end of a body may take after its last event.
const BODY_END_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before a cancellation is sent again that the shim found no call for, doubled each time.
const CANCEL_RETRY: Duration = Duration::from_millis(20);
/// Longest such pause.
const MAX_CANCEL_RETRY: Duration = Duration::from_secs(2);

/// A call that was handed to the shim. Dropping it closes the connection, which cancels the call.
#[derive(Debug)]
pub(crate) struct Exchange {
    upstream: Arc<Upstream>,
    /// Where the call was sent.
    pod: Arc<Pod>,
    connection: Connection,
    answer: Answer,
    buffer: BytesMut,
    /// The last chunk, while there is no memory for it yet.
    arrived: Option<Bytes>,
    /// Bytes that may still be read.
    remaining: u64,
    /// Limit on the bytes of the result.
    max_response: usize,
    /// What is reserved for an answer that is not small.
    memory: Option<Reservation>,
}

/// Why a request was not sent to a pod.
enum SendError {
    /// No byte of it was sent.
    Unsent(Box<Request<Full<Bytes>>>, UpstreamError),
    /// It may have been sent.
    Broken(UpstreamError),
}

/// How far the answer has come.
enum Answer {
    Head(Head),
    Body(Incoming),
    /// There was no head.
    Failed,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head(_) => "Head",
            Self::Body(_) => "Body",
            Self::Failed => "Failed",
        })
    }
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

/// A request before it is sent.
fn request(method: Method, path: &'static str, body: Bytes) -> Request<Full<Bytes>> {
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
    request
}

/// A request that was handed to a connection, or the error of `hold`.
type Sent<E> = Result<(Connection, Head), E>;

impl Upstream {
    /// Sends a request for the report to a pod and waits for the head of its answer.
    pub(super) async fn ask_any(
        &self,
        path: &'static str,
    ) -> Result<(&Arc<Pod>, Connection, Response<Incoming>), UpstreamError> {
        let request = request(Method::GET, path, Bytes::new());
        let (pod, Ok((mut connection, mut head))) = self.send(request, &|| Ok::<_, Infallible>(())).await?;
        let response = connection.head(&mut head).await?;
        Ok((pod, connection, response))
    }

    /// Hands a request to a connection to one of the pods: to the next one, if a pod does not accept connections. Never
    /// sends a request twice. Returns the error of `hold` if it has one ([`Connection::hand_over`]).
    async fn send<H, E>(
        &self,
        mut request: Request<Full<Bytes>>,
        hold: &impl Fn() -> Result<H, E>,
    ) -> Result<(&Arc<Pod>, Sent<E>), UpstreamError> {
        let mut failed = UpstreamError::NoPod;
        for pod in self.turn() {
            match self.send_to(pod, request, hold).await {
                Ok(sent) => return Ok((pod, sent)),
                Err(SendError::Unsent(unsent, error @ UpstreamError::Connect(_))) => {
                    (request, failed) = (*unsent, error);
                }
                Err(SendError::Unsent(_, error) | SendError::Broken(error)) => return Err(error),
            }
        }
        Err(failed)
    }

    /// Hands a request to a connection to that pod, an idle one if one is still open.
    async fn send_to<H, E>(
        &self,
        pod: &Pod,
        mut request: Request<Full<Bytes>>,
        hold: &impl Fn() -> Result<H, E>,
    ) -> Result<Sent<E>, SendError> {
        loop {
            let idle = pod.take();
            let reused = idle.is_some();
            let mut connection = match idle {
                Some(idle) => idle,
                None => match Connection::open(pod.address, self.server.tls.clone(), &self.server.memory).await {
                    Ok(opened) => opened,
                    Err(error) => return Err(SendError::Unsent(Box::new(request), error)),
                },
            };
            if reused && !connection.is_usable() {
                continue;
            }
            match connection.hand_over(request, hold) {
                Ok(head) => return Ok(Ok((connection, head))),
                Err(HandOverError::Refused(why)) => {
                    pod.keep(connection);
                    return Ok(Err(why));
                }
                Err(HandOverError::Unsent(unsent, _)) if reused => request = *unsent,
                Err(HandOverError::Unsent(unsent, error)) => return Err(SendError::Unsent(unsent, error)),
                Err(HandOverError::Broken(error)) => return Err(SendError::Broken(error)),
            }
        }
    }

    /// Hands a call to the shim, with the two lines of its envelope. `max_response` is the limit on the bytes of the
    /// result. `hold` is called right before the first byte is written; if it returns an error, so does this.
    pub(crate) async fn call<H, E>(
        self: &Arc<Self>,
        lines: Bytes,
        max_response: u64,
        hold: impl Fn() -> Result<H, E>,
    ) -> Result<Result<Exchange, E>, UpstreamError> {
        let (pod, sent) = self.send(request(Method::POST, CALL_PATH, lines), &hold).await?;
        Ok(sent.map(|(connection, head)| Exchange {
            upstream: Arc::clone(self),
            pod: Arc::clone(pod),
            connection,
            answer: Answer::Head(head),
            buffer: BytesMut::new(),
            arrived: None,
            remaining: max_response.saturating_add(ENVELOPE_MARGIN),
            max_response: usize::try_from(max_response).unwrap_or(usize::MAX),
            memory: None,
        }))
    }
}

impl Upstream {
    /// Notifies the shim in a pod that a call is cancelled. Returns false if it cannot be notified.
    async fn notify_cancelled(&self, pod: &Pod, call: Ulid) -> bool {
        let mut pause = CANCEL_RETRY;
        loop {
            let request = request(Method::POST, CANCEL_PATH, Bytes::from(call.to_string()));
            let Ok(Ok((mut connection, mut head))) = self.send_to(pod, request, &|| Ok::<_, Infallible>(())).await
            else {
                return false;
            };
            let Ok(response) = connection.head(&mut head).await else { return false };
            let (head, mut body) = response.into_parts();
            if let Ok(None) = connection.next_chunk(&mut body).await {
                pod.keep(connection);
            }
            match head.status {
                StatusCode::NO_CONTENT => return true,
                // The call travels on another connection: it has not arrived yet, or its answer is under way.
                StatusCode::CONFLICT => tokio::time::sleep(pause).await,
                _ => return false,
            }
            pause = (2 * pause).min(MAX_CANCEL_RETRY);
        }
    }
}

impl Exchange {
    /// Returns the next chunk of the answer's body, or `None` at its end.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if let Answer::Head(head) = &mut self.answer {
            let arrived = self.connection.head(head).await;
            // A future that has ended must not be polled again.
            self.answer = Answer::Failed;
            let (head, body) = arrived?.into_parts();
            self.pod.note_epoch(epoch(&head.headers));
            self.answer = Answer::Body(body);
            if head.status != StatusCode::OK {
                return Err(UpstreamError::Status(head.status));
            }
        }
        match &mut self.answer {
            Answer::Body(body) => self.connection.next_chunk(body).await,
            Answer::Head(_) | Answer::Failed => Err(UpstreamError::Ended("it has no head")),
        }
    }

    /// Returns the declared length of what is left of the answer's body.
    fn declared(&self) -> u64 {
        match &self.answer {
            Answer::Head(_) | Answer::Failed => 0,
            Answer::Body(body) => body.size_hint().exact().unwrap_or(0),
        }
    }

    /// Returns the next line of the answer, for [`Event::parse`]. Waits for memory in the account of the caller. Nothing is
    /// lost if it is dropped while it waits.
    pub(crate) async fn next_line(&mut self, account: &Arc<Account>) -> Result<Bytes, UpstreamError> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr(b'\n', &self.buffer[searched..]) {
                let line = self.buffer.split_to(searched + end + 1).freeze();
                return Ok(line);
            }
            searched = self.buffer.len();
            if self.arrived.is_none() {
                let Some(data) = self.next_chunk().await? else {
                    return Err(UpstreamError::Ended("it has no result"));
                };
                self.remaining = self.remaining.checked_sub(data.len() as u64).ok_or(UpstreamError::TooLarge)?;
                if self.buffer.is_empty() && memchr(b'\n', &data).is_some_and(|end| end + 1 == data.len()) {
                    // A typical answer is one line in one chunk, which is not copied.
                    return Ok(data);
                }
                self.arrived = Some(data);
            }
            let length = self.arrived.as_ref().map_or(0, Bytes::len);
            self.make_room(self.buffer.len() + length, account).await?;
            self.buffer.extend(self.arrived.take());
        }
    }

    /// Makes room for an answer of which this many bytes have arrived: memory for the answer itself and for the message
    /// that is made of it. If the length is not declared, first for an answer that is not long, then for the longest.
    ///
    /// Does not reserve a little more again and again: answers that keep what they have while they wait for what others
    /// have could wait forever.
    async fn make_room(&mut self, arrived: usize, account: &Arc<Account>) -> Result<(), UpstreamError> {
        let reserved = self.memory.as_ref().map_or(0, Reservation::bytes);
        if arrived <= UNCOUNTED.max(reserved / 2) {
            return Ok(());
        }
        let longest = self.max_response.saturating_add(FRAME).min(memory::largest_answer(account)).max(UNCOUNTED);
        let declared = usize::try_from(self.declared()).unwrap_or(usize::MAX);
        let length = match declared.saturating_add(arrived) {
            whole if declared > 0 || whole > longest => whole,
            _ if reserved == 0 && arrived <= FIRST_RESERVED => FIRST_RESERVED,
            _ => longest,
        };
        if length > longest {
            return Err(UpstreamError::TooLarge);
        }
        let more = account.reserve_for_answer((2 * length).saturating_sub(reserved)).await;
        match &mut self.memory {
            Some(memory) => memory.merge(more),
            None => self.memory = Some(more),
        }
        self.buffer.reserve(length.saturating_sub(self.buffer.len()));
        Ok(())
    }

    /// Cancels the call, and waits until the shim has sent the last event or closed the connection: until then the server
    /// may work on the call. If the shim cannot be notified, closes the connection, which cancels the call too, and waits
    /// indefinitely, because there is no other sign.
    pub(crate) async fn cancel(mut self, call: Ulid) {
        self.buffer = BytesMut::new();
        self.memory = None;
        let (upstream, pod) = (Arc::clone(&self.upstream), Arc::clone(&self.pod));
        let notified = tokio::select! {
            biased;
            ended = self.discard() => Err(ended),
            notified = upstream.notify_cancelled(&pod, call) => Ok(notified),
        };
        let ended = match notified {
            Err(ended) => ended,
            Ok(true) => self.discard().await,
            Ok(false) => {
                drop(self);
                return std::future::pending().await;
            }
        };
        if ended.is_ok() {
            self.pod.keep(self.connection);
        }
    }

    /// Reads the answer to its end without keeping it.
    async fn discard(&mut self) -> Result<(), UpstreamError> {
        while self.next_chunk().await?.is_some() {}
        Ok(())
    }

    /// Ends the exchange after its last event. Returns the connection to the pool if nothing follows the event, without
    /// waiting for that.
    pub(crate) fn finish(mut self) {
        if !self.buffer.is_empty() {
            return;
        }
        match self.next_chunk().now_or_never() {
            Some(Ok(None)) => self.pod.keep(self.connection),
            // Data after the last event: the connection cannot be used again.
            Some(_) => {}
            // The end of a chunked body can arrive in a separate packet.
            None => drop(tokio::spawn(async move {
                let end = self.next_chunk();
                if let Ok(Ok(None)) = tokio::time::timeout(BODY_END_TIMEOUT, end).await {
                    self.pod.keep(self.connection);
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
