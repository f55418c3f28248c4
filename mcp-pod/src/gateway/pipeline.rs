//! The life of a request, from its head to its answer: this is the one list of its stages.
//!
//! Each reason for which a request is refused belongs to one of them (`Stage` in `mcp_fleet_policy::reason`):
//!
//! 1. `policy`: a policy is in force, fresh enough for the class of the tool, and suspends nobody.
//! 2. `authenticate`: the bearer token names a principal; decided from the head alone, before the body is read.
//! 3. `decode`: the head and the body are one well-formed message of one protocol revision.
//! 4. `authorise`: the caller has the server, and one of its grants has the tool.
//! 5. `validate`: the arguments keep the rules of the catalogue and of that grant.
//! 6. `govern`: rates and concurrency have room, and leases pay the price.
//! 7. `forward`: the shim has the call done, and the answer is checked.
//! 8. `audit`: the line that was reserved before the call was forwarded is written.
//!
//! [`answer`] runs them and answers, counts and audits every rejection in one place. [`stages`] runs those that all
//! requests have in common, then [`methods`]; the stages of one tool call are in [`super::call`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use mcp_fleet_policy::engine::View;
use mcp_fleet_policy::reason::Reason;
use ulid::Ulid;

use super::audit::RequestRecord;
use super::log_throttle::LogThrottle;
use super::methods;
use super::policy::ActivePolicy;
use super::request::{Caller, Era, McpHeaders, Message, check, era, known, read, read_body, route};
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
    let caller = authenticate(state, policy, record, peer, &head.headers, now)?;
    let view = find_server(policy, record, &head, caller)?;
    let body = read_body(&head.headers, body, view.server().limits.max_request.get()).await?;
    let headers = McpHeaders::read(&head.headers);
    let (message, era) = decode(record, &headers, &body)?;
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

/// Identifies the caller, and refuses one that sends more requests than anybody may, whatever they are.
fn authenticate<'p>(
    state: &State,
    policy: &'p ActivePolicy,
    record: &mut RequestRecord,
    peer: IpAddr,
    headers: &HeaderMap,
    now: i64,
) -> Result<Caller<'p>, Rejection> {
    let caller = check(&policy.compiled, &policy.token_verifier, &state.failures, peer, headers, now)?;
    record.principal = Some(caller.principal.index());
    let looked = state.governor.look(state.tick(), &caller.principal.policy().uid);
    looked.map_err(|denial| Rejection::too_many_requests(&denial))?;
    Ok(caller)
}

/// Checks the head, and finds the server in its path among those that the caller has.
fn find_server<'p>(
    policy: &ActivePolicy,
    record: &mut RequestRecord,
    head: &Parts,
    caller: Caller<'p>,
) -> Result<View<'p>, Rejection> {
    if route::foreign_origin(&head.headers, &policy.tenant_policy().audience) {
        return Err(Rejection::head(StatusCode::FORBIDDEN, Reason::OriginRefused));
    }
    let view = route::server(head.uri.path())
        .ok_or(Reason::ServerUnknown)
        .and_then(|server| caller.principal.view(server))
        .map_err(|reason| Rejection::head(StatusCode::NOT_FOUND, reason))?;
    record.server = Some(view.server_index());
    route::check_head(&head.method, &head.headers)?;
    Ok(view)
}

/// Reads the message in the body, and its revision from the headers and the message together.
fn decode<'b>(
    record: &mut RequestRecord,
    headers: &McpHeaders,
    body: &'b [u8],
) -> Result<(Message<'b>, Era), Rejection> {
    let message = read(body)?;
    record.method = known(&message.method).ok_or_else(|| message.method.clone());
    let era = era(headers, &message).map_err(|wrong| Rejection::wrong_revision(message.id(), &wrong))?;
    Ok((message, era))
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_the_module_documentation_are_those_of_the_reasons() {
        let documented: Vec<_> = include_str!("pipeline.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! ")?.split_once(". `")?.1.split_once("`: "))
            .map(|(stage, _)| stage)
            .collect();
        let mut stages: Vec<_> = Reason::ALL.iter().map(|reason| reason.stage().as_str()).collect();
        stages.dedup();
        assert_eq!(documented, stages);
    }
}
