//! Streamable HTTP: each message is an HTTP request, and the response to a request of ours is JSON or an event stream.
//!
//! A server may forget a session, for example when nobody has called it for a while. It says so before it does anything, so a new
//! session is begun, and the message is sent again. A stream that ends before its answer is resumed if its events have ids.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::super::rpc::{MODERN, Outgoing, Phase, RequestOutcome, Sent};
use super::events::Events;
use super::exchange::{ExchangeError, SESSION};
use super::{ACCEPT_TIMEOUT, HttpEnd, Server, next};

/// How long the rest of a response is waited for, so that its connection can be used again.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before a stream is resumed, or asked for again, unless the server says another.
const STREAM_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a stream of notifications is asked for again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Requests that the server has not read, in units of 1 KiB: as much as may wait for a server on pipes.
const UNREAD_UNITS: u32 = 24 << 10;
/// Replies to requests of the server that it may leave unread.
const UNREAD_REPLIES: usize = 8;
/// The same of cancellations.
const UNREAD_CANCELLATIONS: usize = 256;
const INITIALIZED: &[u8] = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";

/// The session with a server (MCP 2025-11-25 and earlier).
#[derive(Debug, Default)]
struct Session {
    /// None if the server has no sessions.
    id: Mutex<Option<HeaderValue>>,
    /// The request that begins a session.
    initialize: Mutex<Bytes>,
    /// Held while a new session begins.
    renewal: tokio::sync::Mutex<()>,
}

/// The messages of one run.
struct Streamable {
    server: Arc<Server>,
    session: Session,
}

/// Exchanges messages with a server until the client is closed.
pub(super) async fn run(server: Arc<Server>, mut queue: mpsc::Receiver<Outgoing>) -> HttpEnd {
    let streamable = Arc::new(Streamable { server, session: Session::default() });
    let rpc = Arc::clone(&streamable.server.rpc);
    let unread = Arc::new(Semaphore::new(UNREAD_UNITS as usize));
    let replies = Arc::new(Semaphore::new(UNREAD_REPLIES));
    let cancellations = Arc::new(Semaphore::new(UNREAD_CANCELLATIONS));
    let mut tasks = JoinSet::new();
    loop {
        let outgoing = match next(&rpc, &mut tasks, &mut queue).await {
            Ok(outgoing) => outgoing,
            Err(end) => return end,
        };
        let units = u32::try_from(outgoing.line.len() >> 10).unwrap_or(UNREAD_UNITS).min(UNREAD_UNITS - 1) + 1;
        let room = tokio::select! {
            biased;
            () = rpc.closed() => return HttpEnd::Stopped,
            room = Arc::clone(&unread).acquire_many_owned(units) => room.ok(),
        };
        if !rpc.start_writing(&outgoing) {
            continue;
        }
        let line = Bytes::from(outgoing.line);
        let own = Arc::clone(&streamable);
        match outgoing.sent {
            Sent::Request(id) => {
                tasks.spawn(own.request(line, id, room));
            }
            // Since MCP 2026-07-28, the end of its connection cancels a request. There will be no answer.
            Sent::Cancellation(id) if rpc.revision() == Some(MODERN) => rpc.fail(id, RequestOutcome::Cancelled),
            Sent::Listen => {
                tasks.spawn(own.listen(line));
            }
            // The server has to know that it is initialized before it gets the next request.
            Sent::Other if rpc.phase() != Phase::Started => {
                tokio::select! {
                    biased;
                    () = rpc.closed() => return HttpEnd::Stopped,
                    accepted = own.accept(line) => match accepted {
                        Ok(rest) => {
                            tasks.spawn(async move {
                                finish(Some(rest)).await;
                                None
                            });
                        }
                        Err(end) => if let Some(end) = end { return end },
                    },
                }
            }
            Sent::Cancellation(_) | Sent::Other => {
                let unread = if outgoing.sent == Sent::Other { &replies } else { &cancellations };
                match Arc::clone(unread).try_acquire_owned() {
                    Ok(permit) => {
                        tasks.spawn(own.notify(line, permit));
                    }
                    Err(_) => rpc.reply_dropped(),
                }
            }
        }
    }
}

impl Streamable {
    /// Sends a request, and waits until it has ended. `room` is what it takes of what the server may leave unread.
    async fn request(self: Arc<Self>, line: Bytes, id: u64, room: Option<OwnedSemaphorePermit>) -> Option<HttpEnd> {
        let rpc = &self.server.rpc;
        let over = rpc.watch(id);
        let exchanged = tokio::select! {
            biased;
            exchanged = self.exchange(line, id, room) => exchanged,
            // It was cancelled, or has timed out.
            () = over.cancelled() => return None,
        };
        match exchanged {
            Ok(rest) => finish(rest).await,
            Err(error) => {
                rpc.fail(id, error.outcome());
                if error == ExchangeError::Refused {
                    return Some(HttpEnd::NotListening);
                }
            }
        }
        None
    }

    /// Sends a request and dispatches what the server answers. Returns the rest of the response when the request has ended.
    async fn exchange(
        &self,
        line: Bytes,
        id: u64,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<Option<Incoming>, ExchangeError> {
        let rpc = &self.server.rpc;
        let begins = rpc.phase() == Phase::Initializing && rpc.revision().is_none();
        if begins {
            *self.session.initialize.lock() = line.clone();
        }
        let response = self.post(line).await?;
        drop(room);
        if begins && response.status().is_success() {
            *self.session.id.lock() = response.headers().get(SESSION).cloned();
        }
        let mut events = Events::default();
        let mut read = self.server.read(response, Some(id), &mut events).await;
        // There are no sessions to resume a stream of since MCP 2026-07-28.
        while read.as_ref().is_err_and(|error| *error == ExchangeError::NoAnswer)
            && rpc.revision() != Some(MODERN)
            && let Some(last) = events.last_id().cloned()
        {
            sleep(events.retry().unwrap_or(STREAM_PAUSE)).await;
            let session = self.session.id.lock().clone();
            // The server has seen the request, whatever happens now.
            let resumed = self.server.get_events(&self.server.path, session.as_ref(), Some(&last)).await;
            let Some(response) = resumed.ok().filter(|response| response.status().is_success()) else { break };
            events = Events::after(last);
            read = self.server.read(response, Some(id), &mut events).await;
        }
        match read {
            Err(ExchangeError::Refused | ExchangeError::Unreachable) => Err(ExchangeError::Lost),
            read => read,
        }
    }

    /// Sends a notification or a response.
    async fn notify(self: Arc<Self>, line: Bytes, _permit: OwnedSemaphorePermit) -> Option<HttpEnd> {
        match self.accept(line).await {
            Ok(rest) => {
                finish(Some(rest)).await;
                None
            }
            Err(end) => end,
        }
    }

    /// Sends a notification or a response, and waits until the server has accepted it. Returns the rest of what it says to that.
    async fn accept(&self, line: Bytes) -> Result<Incoming, Option<HttpEnd>> {
        match timeout(ACCEPT_TIMEOUT, self.post(line)).await {
            Ok(Ok(response)) => {
                if !response.status().is_success() {
                    debug!(status = %response.status(), "the server did not accept a notification");
                }
                Ok(response.into_body())
            }
            Ok(Err(ExchangeError::Refused)) => Err(Some(HttpEnd::NotListening)),
            Ok(Err(error)) => {
                debug!(%error, "the server did not accept a notification");
                Err(None)
            }
            Err(_) => {
                debug!("the server did not accept a notification in time");
                Err(None)
            }
        }
    }

    /// Posts a message in the current session, and once again in a new one if the server does not know that session.
    async fn post(&self, line: Bytes) -> Result<Response<Incoming>, ExchangeError> {
        let session = self.session();
        let response = self.server.post(&self.server.path, line.clone(), session.as_ref()).await?;
        let Some(session) = session.filter(|_| response.status() == StatusCode::NOT_FOUND) else { return Ok(response) };
        drop(response);
        self.renew(&session).await?;
        self.server.post(&self.server.path, line, self.session().as_ref()).await
    }

    /// Returns the id of the session, where there are sessions.
    fn session(&self) -> Option<HeaderValue> {
        self.session.id.lock().clone().filter(|_| self.server.rpc.revision() != Some(MODERN))
    }

    /// Begins a new session in place of `lost`, unless that has been done already.
    async fn renew(&self, lost: &HeaderValue) -> Result<(), ExchangeError> {
        let _only = self.session.renewal.lock().await;
        if self.session.id.lock().as_ref() != Some(lost) {
            return Ok(());
        }
        let path = &self.server.path;
        let initialize = self.session.initialize.lock().clone();
        let beginning = async {
            let response = self.server.post(path, initialize, None).await?;
            let session = response.headers().get(SESSION).cloned();
            let result = self.server.read_result(response).await?;
            // Another revision would have other messages.
            let begun = serde_json::from_slice::<Begun<'_>>(&result).map_err(|_| ExchangeError::NoAnswer)?;
            if self.server.rpc.revision() != Some(&*begun.protocol_version) {
                return Err(ExchangeError::NoAnswer);
            }
            let accepted = self.server.post(path, Bytes::from_static(INITIALIZED), session.as_ref()).await?;
            if !accepted.status().is_success() {
                return Err(ExchangeError::of_status(accepted.status()));
            }
            Ok(session)
        };
        let session = timeout(ACCEPT_TIMEOUT, beginning).await.map_err(|_| ExchangeError::NoAnswer)??;
        *self.session.id.lock() = session;
        info!("the server has forgotten its session, and began a new one");
        Ok(())
    }

    /// Receives what the server sends without a request, as long as it lives. A server that offers no stream for it is not asked
    /// again.
    async fn listen(self: Arc<Self>, line: Bytes) -> Option<HttpEnd> {
        let rpc = &self.server.rpc;
        let (mut last, mut pause, mut is_first) = (None, STREAM_PAUSE, true);
        loop {
            let (session, asked) = (self.session(), Instant::now());
            let response = if line.is_empty() {
                self.server.get_events(&self.server.path, session.as_ref(), last.as_ref()).await
            } else {
                self.server.post(&self.server.path, line.clone(), None).await
            };
            match response {
                Ok(response) if response.status().is_success() => {
                    // What was sent while there was no stream is lost.
                    if !std::mem::take(&mut is_first) {
                        rpc.list_again();
                    }
                    let mut events = Events::default();
                    match self.server.read(response, None, &mut events).await {
                        Ok(_) => {}
                        Err(ExchangeError::ContentType) => {
                            warn!("the server says that its tools may change, but offers no stream to say when");
                            return None;
                        }
                        Err(error) => debug!(%error, "the stream of notifications ended"),
                    }
                    last = events.last_id().cloned().or(last);
                }
                Ok(response) => {
                    let session = session.filter(|_| response.status() == StatusCode::NOT_FOUND);
                    let Some(session) = session else {
                        let status = response.status();
                        warn!(%status, "the server says that its tools may change, but offers no stream to say when");
                        return None;
                    };
                    last = None;
                    if let Err(error) = self.renew(&session).await {
                        debug!(%error, "the server did not begin a session again");
                    }
                }
                Err(ExchangeError::Refused) => return Some(HttpEnd::NotListening),
                Err(error) => debug!(%error, "the server did not open a stream of notifications"),
            }
            pause = if asked.elapsed() > LONGEST_PAUSE { STREAM_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            sleep(pause).await;
        }
    }
}

/// The result of `initialize`, as far as it has to be the same in each session.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun<'a> {
    #[serde(borrow)]
    protocol_version: Cow<'a, str>,
}

/// Reads the rest of a response, if it comes soon.
async fn finish(rest: Option<Incoming>) {
    if let Some(mut rest) = rest {
        let _ = timeout(REST_TIMEOUT, async { while rest.frame().await.is_some_and(|frame| frame.is_ok()) {} }).await;
    }
}
