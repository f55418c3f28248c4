//! One forwarded request on one connection to the home.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::debug;

use super::answer::{ForwardedBody, Held, Ticket};
use super::peer::{CONNECTION, Connection, Peer};
use super::upload::{Chunks, Content, Upload};
use super::{EdgeRequest, home_lost, protocol};
use crate::gateway::connection::Client;
use crate::gateway::memory::Use;
use crate::gateway::metrics::ForwardOutcome;
use crate::gateway::request::BodyError;
use crate::gateway::respond::{Body, Rejection};

/// Bytes of a request besides its connection: the chunks that are under way in both directions.
const CHUNKS: usize = 32 * 1024;
/// A peer that has said nothing for this long cannot be reached. It says something within two seconds, the time in which it
/// learns whether it is the home.
const SILENCE: Duration = Duration::from_secs(3);
/// Longest time that a body may take. The home has a shorter limit of its own, and refuses the request when it is over; this one is for
/// a home that hangs.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(40);

/// Why there is no answer of the home.
#[derive(Debug)]
pub(super) enum Failed {
    /// The home has done nothing, and the whole body can be sent to another one.
    Unsent,
    /// The request ends with this.
    Rejected(Box<Rejection>),
}

impl From<Rejection> for Failed {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(Box::new(rejection))
    }
}

/// The head of an answer, once it arrives.
type Head = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// A request of which the home has the head.
struct Sent {
    connection: Connection,
    /// Absent if there is no body.
    chunks: Option<Chunks>,
    decision: Decision,
}

/// What the home says to the head.
enum Decision {
    /// It wants the body.
    Continue(Head),
    /// It needs no body.
    Answer(Response<Incoming>),
}

/// Sends a request to a peer, and returns the head of its answer as soon as there is one. Gives up at the deadline if the peer
/// has not asked for the body.
pub(super) async fn exchange(
    request: &EdgeRequest<'_>,
    peer: &Arc<Peer>,
    deadline: Instant,
    body: &mut Content<'_>,
) -> Result<Response<Body>, Failed> {
    let EdgeRequest { state, principal_uid, account, client, .. } = *request;
    let memory = account.reserve(CONNECTION + CHUNKS, Use::Request).map_err(Rejection::from)?;
    body.reserve(account).map_err(Rejection::from)?;
    let mut ticket = Ticket::new(state);
    let Some(Sent { connection, chunks, decision }) = send_head(request, peer, deadline, body).await else {
        ticket.outcome = ForwardOutcome::Unreachable;
        return Err(Failed::Unsent);
    };
    let (answer, unfinished) = match decision {
        Decision::Answer(answer) if protocol::is_not_home(answer.headers()) => {
            ticket.outcome = ForwardOutcome::NotHome;
            return Err(Failed::Unsent);
        }
        Decision::Answer(answer) => (Some(answer), chunks),
        Decision::Continue(mut answer) => match send_body(&mut answer, chunks.as_ref(), body, client).await {
            Ok((answer, uploaded)) => (answer, chunks.filter(|_| !uploaded)),
            // The home audits that, and the client has gone.
            Err(error @ BodyError::Broken(_)) => {
                return Ok(*Rejection::from(error).and_close(request.head.version).response);
            }
            Err(error) => return Err(Rejection::from(error).into()),
        },
    };
    let left = answer.as_ref().is_some_and(|answer| protocol::is_not_home(answer.headers()));
    if left && body.is_read() {
        ticket.outcome = ForwardOutcome::NotHome;
        return Err(Failed::Unsent);
    }
    let Some(answer) = answer.filter(|_| !left) else {
        ticket.outcome = ForwardOutcome::Lost;
        return Err(home_lost().into());
    };
    let (mut parts, incoming) = answer.into_parts();
    if protocol::is_admitted(&parts.headers) {
        // Its home limits the rate of calls.
        state.governor.give_back_request(principal_uid);
    }
    protocol::strip(&mut parts.headers);
    let held = Held { connection, peer: Arc::clone(peer), unfinished, memory, ticket };
    Ok(Response::from_parts(parts, Body::Forwarded(Box::new(ForwardedBody::new(incoming, held)))))
}

/// Sends the head of a request, and waits for what the home says to it. None if it says nothing.
///
/// The home may have closed an idle connection. Then the head is sent once more on a new one.
async fn send_head(request: &EdgeRequest<'_>, peer: &Peer, deadline: Instant, body: &Content<'_>) -> Option<Sent> {
    // When the peer began to be waited for: a wait for a turn says nothing of it.
    let started = Mutex::new(None);
    let send = async {
        loop {
            let (connection, reused) = if let Some(idle) = peer.take() {
                (idle, true)
            } else {
                *started.lock() = None;
                let turn = peer.turn().await.ok()?;
                *started.lock() = Some(Instant::now());
                match peer.open(turn).await {
                    Ok(opened) => (opened, false),
                    Err(error) => {
                        debug!(%error, peer = %peer.address(), "failed to connect to another gateway");
                        return None;
                    }
                }
            };
            started.lock().get_or_insert_with(Instant::now);
            match send_head_on(connection, request, body).await {
                Ok(sent) => return Some(sent),
                Err(_) if reused => {}
                Err(error) => {
                    debug!(%error, peer = %peer.address(), "failed to forward a request to another gateway");
                    return None;
                }
            }
        }
    };
    tokio::time::timeout_at(deadline.into(), send).await.unwrap_or_else(|_| {
        debug!(peer = %peer.address(), "another gateway did not answer in time");
        let now = Instant::now();
        if started.lock().is_some_and(|started| now.saturating_duration_since(started) >= SILENCE) {
            peer.note_unreachable(now);
        }
        None
    })
}

async fn send_head_on(
    mut connection: Connection,
    request: &EdgeRequest<'_>,
    body: &Content<'_>,
) -> Result<Sent, Box<dyn std::error::Error + Send + Sync>> {
    connection.sender.ready().await?;
    let (chunks, upload) = if body.is_empty() {
        (None, Upload::empty())
    } else {
        let (chunks, upload) = Upload::channel(body.length());
        (Some(chunks), upload)
    };
    let mut forwarded = protocol::request(request.head, request.client.address, upload, body.is_kept())?;
    let wanted = Arc::new(Notify::new());
    let notify = Arc::clone(&wanted);
    hyper::ext::on_informational(&mut forwarded, move |head| {
        if head.status() == StatusCode::CONTINUE {
            notify.notify_one();
        }
    });
    let mut answer: Head = Box::pin(connection.sender.send_request(forwarded));
    let decision = tokio::select! {
        biased;
        answer = &mut answer => Decision::Answer(answer?),
        () = wanted.notified() => Decision::Continue(answer),
    };
    Ok(Sent { connection, chunks, decision })
}

/// Sends the body as it comes, until the home answers. Returns the answer, if there is one, and whether the home has got the
/// whole body.
async fn send_body(
    answer: &mut Head,
    chunks: Option<&Chunks>,
    body: &mut Content<'_>,
    client: &Client,
) -> Result<(Option<Response<Incoming>>, bool), BodyError> {
    let upload = async {
        match chunks {
            Some(chunks) => body.send(chunks, client).await,
            None => Ok(()),
        }
    };
    let upload = async { tokio::time::timeout(UPLOAD_TIMEOUT, upload).await.unwrap_or(Err(BodyError::TimedOut)) };
    let mut upload = pin!(upload);
    let mut uploaded = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut *answer => return Ok((answer.ok(), uploaded)),
            sent = &mut upload, if !uploaded => {
                sent?;
                uploaded = true;
            }
        }
    }
}
