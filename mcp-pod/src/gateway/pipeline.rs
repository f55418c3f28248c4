//! The life of a request: every stage in its order, and one place where rejections are answered, counted and audited.
//!
//! `authenticate (headers) → share → head → body → decode → era → method`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use mcp_fleet_policy::reason::Reason;
use ulid::Ulid;

use super::audit::RequestRecord;
use super::log_throttle::LogThrottle;
use super::methods;
use super::policy::ActivePolicy;
use super::request::{McpHeaders, check_token, detect_era, known_method, read_body, read_message, route};
use super::respond::{Body, Rejection};
use super::state::{RequestContext, State};

/// Answers below this size take no more memory than what stands around them.
const SMALL: usize = 1024;

/// When a stranger's refusal in a flood was last audited: they must not fill the trail, which is rolled over by its size.
static FLOOD: LogThrottle = LogThrottle::new();

/// Answers one request.
pub(crate) async fn answer(state: Arc<State>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let _active = state.enter();
    let mut record = RequestRecord::new(Instant::now(), Ulid::generate(), request.uri().path());
    let policy = state.active_policy();
    let answered = stages(&state, policy.as_ref(), &mut record, peer, request).await;
    let principal = policy.as_ref().zip(record.principal).and_then(|(policy, index)| policy.principal_uid(index));
    let response = match answered {
        Ok(response) => response,
        Err(rejection) => {
            let audited = match principal {
                _ if !rejection.flood => true,
                Some(principal) => state.governor.audible(state.tick(), principal),
                None => FLOOD.allows(),
            };
            state.record_rejected(&record, policy.as_deref(), rejection.reason, audited).await;
            *rejection.response
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
    policy: Option<&Arc<ActivePolicy>>,
    record: &mut RequestRecord,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Rejection> {
    let (head, body) = request.into_parts();
    let now = unix_now();
    let policy = policy.ok_or_else(Rejection::no_policy)?;
    let caller = check_token(&policy.compiled, &policy.token_verifier, &state.failures, peer, &head.headers, now)?;
    record.principal = Some(caller.principal.index());
    state
        .governor
        .look(state.tick(), &caller.principal.policy().uid)
        .map_err(|denial| Rejection::too_many_requests(&denial))?;

    if route::foreign_origin(&head.headers, &policy.tenant_policy().audience) {
        return Err(Rejection::head(StatusCode::FORBIDDEN, Reason::OriginRefused));
    }
    let view = route::server_name(head.uri.path())
        .ok_or(Reason::ServerUnknown)
        .and_then(|server| caller.principal.view(server))
        .map_err(|reason| Rejection::head(StatusCode::NOT_FOUND, reason))?;
    record.server = Some(view.server_index());
    route::check_head(&head.method, &head.headers)?;

    let limit = view.server().limits.max_request.get();
    let body = read_body(&head.headers, body, limit).await?;
    let message = read_message(&body)?;
    record.method = known_method(&message.method).ok_or_else(|| message.method.clone());
    let headers = McpHeaders::read(&head.headers);
    let era = detect_era(&headers, &message).map_err(|wrong| Rejection::wrong_revision(message.id(), &wrong))?;
    let context = RequestContext {
        state,
        policy,
        caller,
        view,
        now,
        length: body.len(),
        events: route::accepts(&head.headers, "text/event-stream"),
        session: headers.session.as_deref(),
    };
    methods::dispatch(&context, record, era, message).await
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
