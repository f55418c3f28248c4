//! The conversation with one run of the server: requests out, answers matched to them.
//!
//! Every request gets an id of our own. Whoever asked holds a [`Ticket`]; dropping it before the answer came cancels
//! the request and makes the link forget it, so that a late answer finds nobody.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::super::metrics::{Dropped, Metrics};
use super::frame::Frame;
use super::message::{self, Message, Outcome};

/// Messages that may wait for the server to read.
const QUEUE: usize = 4096;
/// Their bytes: at least one call of the largest size.
const QUEUE_BYTES: usize = 24 << 20;
/// Requests that may be in flight.
const CALLS: usize = 4096;
/// Progress notifications that may wait for their reader.
const PROGRESS: usize = 16;
/// Longest progress notification that is passed on, in bytes.
const PROGRESS_BYTES: usize = 64 << 10;
/// Room for a line beside the value it carries: the envelope, or a notification while nothing is asked.
const ENVELOPE: usize = 64 << 10;

/// One run of the server.
#[derive(Debug)]
pub(in super::super) struct Link {
    calls: Mutex<Calls>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Ends reader and writer, and with the writer the server's standard input.
    pub(super) ended: CancellationToken,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Calls {
    last_id: u64,
    pending: HashMap<u64, Pending>,
    queued_bytes: usize,
    /// The longest answer that anyone in flight takes.
    longest: usize,
    closed: bool,
}

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Answer>,
    progress: Option<mpsc::Sender<Bytes>>,
    max_answer: usize,
    forwarded: bool,
}

/// How the server answered one request.
#[derive(Debug)]
pub(in super::super) enum Answer {
    /// Its `result`, as written.
    Result(Bytes),
    /// Its `error`, as written.
    Error(Bytes),
    /// More than was asked for.
    TooLarge,
    /// Neither a result nor an error, or both.
    Invalid,
    /// The server ended first.
    Gone {
        /// Whether it may have seen the request.
        forwarded: bool,
    },
}

/// Why a request was not even queued.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Full {
    /// The server has ended.
    Closed,
    /// The server does not keep up.
    Busy,
}

/// A line for the server.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) line: Vec<u8>,
    /// The request it carries, if it carries one.
    pub(super) call: Option<u64>,
}

/// What to ask for.
#[derive(Debug)]
pub(in super::super) struct Request<'a> {
    /// The method, from us.
    pub(in super::super) method: &'static str,
    /// The params, one line of JSON.
    pub(in super::super) params: Params<'a>,
    /// Largest answer to take, in bytes.
    pub(in super::super) max_answer: usize,
}

/// The params of a request.
#[derive(Debug)]
pub(in super::super) enum Params<'a> {
    /// As they are.
    Plain(&'a [u8]),
    /// Split where the progress token goes.
    WithToken(&'a [u8], &'a [u8]),
}

/// A request in flight.
#[derive(Debug)]
pub(in super::super) struct Ticket {
    id: u64,
    link: Arc<Link>,
    /// The answer; an error never happens while the ticket lives.
    pub(in super::super) answer: oneshot::Receiver<Answer>,
    /// Progress, without tokens, if it was asked for.
    pub(in super::super) progress: Option<mpsc::Receiver<Bytes>>,
    /// What the server is told when the ticket is dropped before the answer.
    pub(in super::super) reason: &'static str,
}

impl Link {
    pub(super) fn new(metrics: Arc<Metrics>) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let ended = CancellationToken::new();
        (Arc::new(Self { calls: Mutex::default(), outgoing, ended, metrics }), queue)
    }

    /// Queues a request.
    pub(in super::super) fn ask(self: &Arc<Self>, request: &Request<'_>) -> Result<Ticket, Full> {
        let mut calls = self.calls.lock();
        if calls.closed {
            return Err(Full::Closed);
        }
        let id = calls.last_id + 1;
        let line = request.line(id);
        if calls.pending.len() >= CALLS || calls.queued_bytes + line.len() > QUEUE_BYTES {
            return Err(Full::Busy);
        }
        let length = line.len();
        self.outgoing.try_send(Outgoing { line, call: Some(id) }).map_err(|_| Full::Busy)?;
        calls.queued_bytes += length;
        calls.last_id = id;
        calls.longest = calls.longest.max(request.max_answer);
        let (answer, receiver) = oneshot::channel();
        let (progress, updates) = match request.params {
            Params::Plain(_) => (None, None),
            Params::WithToken(..) => {
                let (sender, updates) = mpsc::channel(PROGRESS);
                (Some(sender), Some(updates))
            }
        };
        calls.pending.insert(id, Pending { answer, progress, max_answer: request.max_answer, forwarded: false });
        self.metrics.in_flight.inc();
        drop(calls);
        let reason = "the caller went away";
        Ok(Ticket { id, link: Arc::clone(self), answer: receiver, progress: updates, reason })
    }

    /// Queues a message that nobody waits for; when there is no room it is lost.
    pub(super) fn tell(&self, line: Vec<u8>) {
        let length = line.len();
        let mut calls = self.calls.lock();
        let room = calls.queued_bytes + length <= QUEUE_BYTES;
        if room && self.outgoing.try_send(Outgoing { line, call: None }).is_ok() {
            calls.queued_bytes += length;
        } else {
            self.metrics.dropped(Dropped::Reply);
        }
    }

    /// Whether a queued line is still wanted; if so it counts as forwarded from now on.
    pub(super) fn about_to_write(&self, outgoing: &Outgoing) -> bool {
        let mut calls = self.calls.lock();
        calls.queued_bytes -= outgoing.line.len();
        let Some(id) = outgoing.call else { return true };
        calls.pending.get_mut(&id).map(|pending| pending.forwarded = true).is_some()
    }

    /// The longest line worth keeping right now, in bytes.
    pub(super) fn line_limit(&self) -> usize {
        self.calls.lock().longest + ENVELOPE
    }

    /// Takes one line of the server. `false`: it was garbage.
    pub(super) fn take(&self, frame: Frame) -> bool {
        let line = match frame {
            Frame::Line(line) => line,
            Frame::TooLong(id) => {
                if !id.is_some_and(|id| self.answer(id, |_| Answer::TooLarge)) {
                    self.metrics.dropped(Dropped::TooLong);
                }
                return true;
            }
        };
        match message::read(&line) {
            Ok(Message::Response { id, outcome }) => {
                let outcome = match outcome {
                    Outcome::Result(raw) => Answer::Result(line.slice_ref(raw.get().as_bytes())),
                    Outcome::Error(raw) => Answer::Error(line.slice_ref(raw.get().as_bytes())),
                    Outcome::Invalid => Answer::Invalid,
                };
                if !self.answer(id, |max| outcome.within(max)) {
                    self.metrics.dropped(Dropped::Stray);
                }
            }
            Ok(Message::Stray) => self.metrics.dropped(Dropped::Stray),
            Ok(Message::Progress { token, params }) => self.progress(token, params),
            Ok(Message::Request { id, ping }) => self.tell(reply(id.get(), ping)),
            Ok(Message::Notification) => {}
            Err(message::Garbage) => {
                self.metrics.dropped(Dropped::Garbage);
                return false;
            }
        }
        true
    }

    /// Hands the answer to whoever waits for it; `false`: nobody does.
    fn answer(&self, id: u64, answer: impl FnOnce(usize) -> Answer) -> bool {
        let pending = self.calls.lock().remove(id);
        let Some(pending) = pending else { return false };
        self.metrics.in_flight.dec();
        pending.answer.send(answer(pending.max_answer)).is_ok()
    }

    fn progress(&self, token: u64, params: &serde_json::value::RawValue) {
        let calls = self.calls.lock();
        let Some(sender) = calls.pending.get(&token).and_then(|pending| pending.progress.as_ref()) else {
            return;
        };
        let passed = params.get().len() <= PROGRESS_BYTES
            && message::without_token(params).is_some_and(|params| sender.try_send(params.into()).is_ok());
        if !passed {
            self.metrics.dropped(Dropped::Progress);
        }
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.lock().pending.len()
    }

    /// Ends the conversation: everyone who waits is told so, and nobody can ask any more.
    pub(super) fn close(&self) {
        self.ended.cancel();
        let mut calls = self.calls.lock();
        calls.closed = true;
        for (_, pending) in calls.pending.drain() {
            self.metrics.in_flight.dec();
            // Whoever dropped the receiver no longer cares.
            let _ = pending.answer.send(Answer::Gone { forwarded: pending.forwarded });
        }
    }
}

impl Calls {
    fn remove(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if pending.max_answer == self.longest {
            self.longest = self.pending.values().map(|pending| pending.max_answer).max().unwrap_or(0);
        }
        Some(pending)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(pending) = self.link.calls.lock().remove(self.id) else { return };
        self.link.metrics.in_flight.dec();
        if pending.forwarded {
            let (id, reason) = (self.id, self.reason);
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
                 \"params\":{{\"requestId\":{id},\"reason\":\"{reason}\"}}}}\n"
            );
            self.link.tell(line.into_bytes());
        }
    }
}

impl Ticket {
    /// Whether the server has begun to see the request.
    pub(in super::super) fn forwarded(&self) -> bool {
        self.link.calls.lock().pending.get(&self.id).is_none_or(|pending| pending.forwarded)
    }
}

impl Answer {
    fn within(self, max: usize) -> Self {
        match &self {
            Self::Result(raw) | Self::Error(raw) if raw.len() > max => Self::TooLarge,
            _ => self,
        }
    }
}

impl Request<'_> {
    fn line(&self, id: u64) -> Vec<u8> {
        let start = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{}\",\"params\":", self.method);
        let mut line = start.into_bytes();
        match self.params {
            Params::Plain(params) => line.extend_from_slice(params),
            Params::WithToken(before, after) => {
                line.extend_from_slice(before);
                line.extend_from_slice(id.to_string().as_bytes());
                line.extend_from_slice(after);
            }
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

/// We announce no capability, so the server has nothing to ask for but `ping`.
fn reply(id: &str, ping: bool) -> Vec<u8> {
    let outcome = if ping { r#""result":{}"# } else { r#""error":{"code":-32601,"message":"Method not found"}"# };
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{outcome}}}\n").into_bytes()
}
