//! The life of a request: every stage in its order, and one place where refusals are answered, counted and audited.
//!
//! `authenticate (headers) → home → share → head → body → decode → era → method`. With one gateway replica every
//! principal is at home here; forwarding to its home comes behind the first, because from there on state is touched.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::reason::Reason;
use ulid::Ulid;

use super::authenticate::{Unauthenticated, check};
use super::decode::{Era, McpHeaders, era, known, read};
use super::enforced::Enforced;
use super::journal::Journal;
use super::methods::{self, Context};
use super::read_body::{BodyError, read_body};
use super::refused::Refused;
use super::respond::{Body, Failure, denied_request, error, unauthorised};
use super::route::{self, Unfit};
use super::seldom::Seldom;
use super::state::State;

/// Answers below this size take no more memory than what stands around them.
const SMALL: usize = 1024;

/// When a stranger's refusal in a flood was last audited: they must not fill the trail, which is rolled over by its size.
static FLOOD: Seldom = Seldom::new();

/// Answers one request.
pub(crate) async fn answer(state: Arc<State>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let _active = state.enter();
    let mut journal = Journal::new(Instant::now(), Ulid::generate(), request.uri().path());
    let enforced = state.enforced();
    let answered = stages(&state, enforced.as_ref(), &mut journal, peer, request).await;
    let principal =
        enforced.as_ref().zip(journal.principal).and_then(|(enforced, index)| enforced.principal_uid(index));
    let response = match answered {
        Ok(response) => response,
        Err(refused) => {
            let audited = match principal {
                _ if !refused.flood => true,
                Some(principal) => state.governor.audible(state.tick(), principal),
                None => FLOOD.now(),
            };
            journal.refused(&state, enforced.as_deref(), refused.reason, audited).await;
            *refused.response
        }
    };
    match principal {
        Some(principal) => response.map(|body| match body {
            Body::Whole(bytes) if bytes.len() >= SMALL => Body::Whole(state.unread(principal, bytes)),
            body => body,
        }),
        None => response,
    }
}

async fn stages(
    state: &Arc<State>,
    enforced: Option<&Arc<Enforced>>,
    journal: &mut Journal,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    let (head, body) = request.into_parts();
    let now = unix_now();
    let enforced = enforced.ok_or_else(|| unserviceable(Reason::PolicyMissing))?;
    let caller = check(enforced, &state.flood, peer, &head.headers, now).map_err(unauthenticated)?;
    journal.principal = Some(caller.principal.index());
    state.governor.look(state.tick(), &caller.principal.policy().uid).map_err(|denial| too_much(&denial))?;

    if route::foreign_origin(&head.headers, &enforced.policy().audience) {
        return Err(plain(StatusCode::FORBIDDEN, Reason::OriginRefused));
    }
    let view = route::server(head.uri.path())
        .ok_or(Reason::ServerUnknown)
        .and_then(|server| caller.principal.view(server))
        .map_err(|reason| plain(StatusCode::NOT_FOUND, reason))?;
    journal.server = Some(view.server_index());
    route::fit(&head.method, &head.headers).map_err(unfit)?;

    let limit = view.server().limits.max_request.get();
    let body = read_body(&head.headers, body, limit).await.map_err(|error| unread(&error))?;
    let message = read(&body).map_err(|invalid| {
        let failure =
            Failure { status: StatusCode::BAD_REQUEST, code: invalid.code, message: &invalid.text, data: None };
        Refused::new(Reason::MessageInvalid, error(invalid.id.as_ref(), &failure))
    })?;
    journal.method = known(&message.method).ok_or_else(|| message.method.clone());
    let headers = McpHeaders::read(&head.headers);
    let era = era(&headers, &message).map_err(|wrong| {
        let (text, data) = (wrong.to_string(), wrong.data());
        let failure =
            Failure { status: StatusCode::BAD_REQUEST, code: wrong.code(), message: &text, data: data.as_deref() };
        let reason = if data.is_some() { Reason::VersionUnsupported } else { Reason::RequestInvalid };
        Refused::new(reason, error(message.id(), &failure))
    })?;
    let context = Context {
        state,
        enforced,
        caller,
        view,
        now,
        length: body.len(),
        events: route::accepts(&head.headers, "text/event-stream"),
        session: headers.session.as_deref(),
    };
    match era {
        Era::Modern => methods::modern(&context, journal, message).await,
        Era::Legacy(named) => methods::legacy(&context, journal, named, message).await,
    }
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A refusal that is about the head alone.
fn plain(status: StatusCode, reason: Reason) -> Refused {
    Refused::new(reason, denied_request(None, status, &Denial::new(reason)))
}

/// Nobody can be told from anybody else yet: the only 503.
fn unserviceable(reason: Reason) -> Refused {
    let mut refused = plain(StatusCode::SERVICE_UNAVAILABLE, reason);
    refused.response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    refused
}

fn unauthenticated(why: Unauthenticated) -> Refused {
    match why {
        Unauthenticated::Refused(reason) => Refused::new(reason, unauthorised(reason)),
        Unauthenticated::Flood => {
            let mut refused = plain(StatusCode::TOO_MANY_REQUESTS, Reason::TokenInvalid);
            refused.response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            refused.flood = true;
            refused
        }
    }
}

/// More than one principal may ask for, whatever it is.
fn too_much(denial: &Denial) -> Refused {
    let response = denied_request(None, StatusCode::TOO_MANY_REQUESTS, denial);
    Refused { flood: true, ..Refused::new(denial.reason, response) }
}

fn unfit(why: Unfit) -> Refused {
    let status = match why {
        Unfit::Method => StatusCode::METHOD_NOT_ALLOWED,
        Unfit::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Unfit::Accept => StatusCode::NOT_ACCEPTABLE,
    };
    let mut refused = plain(status, Reason::RequestInvalid);
    if why == Unfit::Method {
        refused.response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    refused
}

fn unread(why: &BodyError) -> Refused {
    match why {
        BodyError::TooLarge => plain(StatusCode::PAYLOAD_TOO_LARGE, Reason::RequestTooLarge),
        BodyError::Slow => plain(StatusCode::REQUEST_TIMEOUT, Reason::RequestInvalid),
        BodyError::Broken(_) => plain(StatusCode::BAD_REQUEST, Reason::RequestInvalid),
    }
}
