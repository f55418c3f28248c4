//! Forwarding of requests to the gateway that is the home of their caller: the one that this process is connected to its
//! clients for is the *edge*, and the other one a *peer*.
//!
//! The edge has authenticated the request from its head alone when it calls [`forward`]; of the body it has read nothing. It
//! sends the head to the home, and the body once the home asks for it with `100 Continue` (RFC 9110, 10.1.1). Before that the
//! home cannot have made a call, so the request may be sent to another gateway, or be decided here. Afterwards it is sent again
//! only if the home says that it has done nothing, because another gateway became the home, and if the whole body is still here:
//! small ones are kept.
//!
//! The home treats what it gets from a peer as if the client had sent it: it authenticates the caller again, applies all
//! limits, and alone audits. It forwards nothing that was forwarded to it ([`protocol`]).
//!
//! [`exchange`] is one request on one connection, [`upload`] its body and [`answer`] the body of its answer. [`peers`] are the
//! gateways that can be reached, [`peer`] is one of them and the connections to it.

mod answer;
mod exchange;
mod peer;
mod peers;
mod protocol;
mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use http::StatusCode;
use http::request::Parts;
use mcp_fleet_policy::reason::Reason;

use super::connection::Client;
use super::memory::Account;
use super::respond::{Body, Rejection, denied_request};
use super::state::{Place, State};
pub(crate) use answer::{ForwardedBody, HomeLost};
use exchange::{Failed, exchange};
pub(crate) use peers::Peers;
pub(crate) use protocol::{mark_admitted, may_leave, not_home, read_client};
pub(crate) use upload::Content;

/// Longest time until a home asks for the body of a request, or answers it: with all attempts, and waiting for another home. A
/// home may itself wait two seconds to learn that it is the home.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a request that was read before it was known that another gateway is the home: it has waited for that.
const NEXT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after a home has refused the head of a request it is asked again. Its process may have started a moment ago, or have no
/// place for the connection.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What became of a request whose caller's home may be elsewhere.
#[derive(Debug)]
pub(crate) enum Forwarded {
    /// The request has its answer.
    Answered(Response<Body>),
    /// It has to be decided here. No gateway has done anything with it.
    Undelivered,
}

/// A request as the edge has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeRequest<'r> {
    pub(crate) state: &'r Arc<State>,
    /// The caller.
    pub(crate) principal_uid: &'r str,
    /// Account for the memory of the caller's requests.
    pub(crate) account: &'r Arc<Account>,
    pub(crate) head: &'r Parts,
    pub(crate) client: &'r Client,
    /// How long a call of the server may take.
    pub(crate) timeout: Duration,
}

/// Forwards a request, if the home of its caller is another gateway that can be reached. One that refuses the head or cannot be
/// reached is asked again, unless there is another home meanwhile, for [`DELIVERY_TIMEOUT`] or as long as a call may take.
///
/// What cannot be delivered is decided here: calls are refused, and the rest is answered as by any gateway.
pub(crate) async fn forward(request: EdgeRequest<'_>, body: &mut Content<'_>) -> Result<Forwarded, Rejection> {
    let EdgeRequest { state, principal_uid, head, timeout, .. } = request;
    let first = if body.is_read() { NEXT_DELIVERY_TIMEOUT } else { DELIVERY_TIMEOUT };
    let mut deadline = Instant::now() + first.min(timeout);
    let mut place = state.homes.find_elsewhere(principal_uid, None, deadline).await;
    loop {
        let peer = match &place {
            Place::Here => break,
            Place::At(pod_uid) => state.peers.get(pod_uid),
            Place::Undecided => None,
        };
        let Some(peer) = peer else { break };
        if peer.rests(Instant::now()).is_none() {
            let was_read = body.is_read();
            match exchange(&request, &peer, deadline, body).await {
                Ok(response) => return Ok(Forwarded::Answered(response)),
                Err(Failed::Rejected(rejection)) => return Err(*rejection),
                // However slowly the body came, there is time for the next home.
                Err(Failed::Unsent) if body.is_read() && !was_read => {
                    deadline = Instant::now() + NEXT_DELIVERY_TIMEOUT.min(timeout);
                }
                Err(Failed::Unsent) => {}
            }
        }
        let now = Instant::now();
        let again = peer.rests(now).unwrap_or(now + ASK_AGAIN).min(deadline);
        let next = state.homes.find_elsewhere(principal_uid, Some(&place), again).await;
        if next == place && Instant::now() >= deadline {
            break;
        }
        place = next;
    }
    if head.method == http::Method::GET {
        // The stream that the client wants to resume is not here. It would not try again if it were told that there is none.
        let denial = state.homes.denial();
        let response = denied_request(None, StatusCode::SERVICE_UNAVAILABLE, &denial);
        return Err(Rejection::new(denial.reason, response));
    }
    Ok(Forwarded::Undelivered)
}

/// Returns the rejection of a request whose home was lost after it may have made the call.
fn home_lost() -> Rejection {
    Rejection::head(StatusCode::BAD_GATEWAY, Reason::HomeLost)
}
