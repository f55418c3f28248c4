//! The stages of a request, from its head to its answer.
//!
//! Each reason for which a request is rejected belongs to one of them ([`mcp_fleet_policy::reason::Stage`]):
//!
//! 1. `policy`: a policy is in force, fresh enough for the class of the tool, and neither tenant nor fleet is stopped.
//! 2. `authenticate`: the bearer token is a principal's; decided from the head alone, before the body is read.
//! 3. `decode`: the head and the body are one well-formed message of one protocol revision.
//! 4. `authorise`: the caller has a grant for the server and the tool.
//! 5. `validate`: the arguments follow the rules of the catalogue and of one single grant.
//! 6. `govern`: rate and concurrency limits have room, and leases pay the price.
//! 7. `forward`: the call goes to the shim, and the answer is checked.
//! 8. `audit`: the audit line is written; its place in the queue was reserved before the call was forwarded. A call that
//!    may change something has a first line, which is written before the call is forwarded.
//!
//! The newest policy decides. After each wait (for the body, an audit slot, a lease, a connection) the stages from
//! `policy` to `govern` are repeated if there is a newer policy or the token has expired, until the call is handed to the
//! shim ([`State::hand_over`]).
//!
//! [`answer`] is the one place where rejections are answered, counted and audited. [`run`] holds the stages that all
//! requests have in common and then dispatches to [`methods`]; [`super::call`] has the other stages of a tool call.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use mcp_fleet_policy::engine::ServerAccess;
use mcp_fleet_policy::reason::{Reason, Stage};
use mcp_fleet_policy::unreadable::Unreadable;
use ulid::Ulid;

use super::audit::RequestRecord;
use super::clock::Moment;
use super::connection::{Client, PeerRequest};
use super::edge::{self, Content, EdgeRequest, Forwarded};
use super::memory::{self, Full, Meter, PrincipalMemory, RequestMemory};
use super::methods;
use super::policy::ActivePolicy;
use super::request::{
    BodyError, Caller, Era, HeadError, Id, IdScan, McpHeaders, Message, SessionOwner, SetAside, check_body,
    check_token, detect_era, discard, known_method, read_body, read_message_or_rest, route,
};
use super::respond::{Body, Rejection, Trail, add_id, allow_origin, event_stream, preflight};
use super::state::{Absence, EventId, Place, RequestContext, State, Unanswered};
use super::trace::{HeaderTrace, StateSource, TraceContext};

/// Answers below this size are part of what their connection has reserved.
const SMALL_ANSWER: usize = 1024;
/// Values in a message that are part of what the request may use without a reservation.
const FREE_VALUES: usize = 64;

/// Answers one request.
pub(crate) async fn answer(state: Arc<State>, client: Arc<Client>, request: Request<Incoming>) -> Response<Body> {
    client.claim_input();
    let _active = state.enter();
    let (head, mut body) = request.into_parts();
    let Some(mut origin) = Origin::of(&client, &head.headers) else { return edge::not_home() };
    let trace = HeaderTrace::read(&head.headers);
    let mut record = RequestRecord::new(Instant::now(), Ulid::generate(), head.uri.path(), trace.parent());
    let mut policy = state.active_policy();
    if let Some(origin) = allowed_origin(&head, policy.as_deref())
        && route::is_preflight(&head.method, head.uri.path(), &head.headers)
    {
        let mut response = preflight();
        allow_origin(&mut response, origin);
        return response;
    }
    let answered = match (route::check_target(&head.method, head.uri.path(), &head.headers), &mut policy) {
        (Err(error), _) => Err(error.into()),
        (Ok(()), Some(policy)) => run(&state, policy, &mut record, &mut origin, (&head, trace), &mut body).await,
        (Ok(()), None) => Err(Rejection::no_policy()),
    };
    let mut response = match answered {
        Ok(response) => {
            if let Body::Forwarded(_) = response.body() {
                // The home may answer before it has the whole body.
                let subject = policy.as_deref().zip(record.principal);
                let free = || subject.map_or(0, |(policy, _)| largest_request(policy));
                let admits = || may_discard(&state, origin.address(), subject);
                Box::pin(discard(head.version, waits(&head), &mut body, &client, None, free, admits)).await;
            }
            response
        }
        Err(Rejection { reason, mut response, trail }) => {
            state.record_rejected(&record, policy.as_deref(), reason, trail).await;
            // A refused token names a principal that it must not be able to harm.
            let is_authenticated = reason.stage() > Stage::Authenticate;
            let subject = policy.as_deref().zip(record.principal).filter(|_| is_authenticated);
            if is_authenticated || state.failures.admits(origin.address(), Instant::now()) {
                let account = subject.and_then(|(policy, index)| policy.memory_at(index)).map(|share| &share.requests);
                // One of many requests on a connection needs memory of its own while it waits for the rest of its body.
                let is_alone = head.version < Version::HTTP_2;
                let memory = account.filter(|_| !is_alone).and_then(|account| RequestMemory::admit(account, true).ok());
                // Whose token is refused gets a status that every client understands, and no more work is done for it.
                let scans = reason.stage() != Stage::Authenticate && is_unread(&head.headers, &body);
                let mut scan = (scans && (is_alone || memory.is_some())).then(IdScan::default);
                let free = || subject.map_or(0, |(policy, _)| largest_request(policy));
                let admits = || may_discard(&state, origin.address(), subject);
                // Another gateway always waits. Its client does not, and the other gateway asks it for the body.
                let waits = waits(&head) && !origin.is_forwarded();
                let read = discard(head.version, waits, &mut body, &client, scan.as_mut(), free, admits).await;
                if let Some(id) = scan.filter(|_| read).and_then(IdScan::end) {
                    add_id(&mut response, &id, McpHeaders::read(&head.headers).are_modern());
                }
            }
            *response
        }
    };
    // The edge says this to the client.
    if let Some(page) = allowed_origin(&head, policy.as_deref()).filter(|_| !origin.is_forwarded()) {
        allow_origin(&mut response, page);
    }
    let response = match policy.as_ref().zip(record.principal).and_then(|(policy, index)| policy.memory_at(index)) {
        Some(share) => response.map(|body| match body {
            Body::Whole(bytes) if bytes.len() >= SMALL_ANSWER => Body::Whole(memory::count(&share.requests, bytes)),
            body => body,
        }),
        None => response,
    };
    match origin.forwarded {
        Some(forwarded) => {
            let mut response = response.map(|body| Body::Held { body: Box::new(body), _forwarded: forwarded });
            if record.admitted {
                edge::mark_admitted(response.headers_mut());
            }
            response
        }
        None => response,
    }
}

/// Returns whether the client sends the body only after `100 Continue`.
fn waits(head: &Parts) -> bool {
    head.headers.contains_key(EXPECT)
}

/// Where a request comes from.
struct Origin<'c> {
    /// The other end of the connection.
    client: &'c Client,
    /// Present if another gateway forwards the request, with the address of its client. Boxed, because it would make the
    /// future of every request larger.
    forwarded: Option<Box<(IpAddr, PeerRequest)>>,
}

impl<'c> Origin<'c> {
    /// Reads the origin of a request. What a client says about itself counts only if another gateway says it. None if that
    /// gateway says it in another way.
    fn of(client: &'c Arc<Client>, headers: &HeaderMap) -> Option<Self> {
        let forwarded = match PeerRequest::begin(client) {
            Some(request) => Some(Box::new((edge::read_client(headers)?, request))),
            None => None,
        };
        Some(Self { client, forwarded })
    }

    /// Returns the address of the client.
    fn address(&self) -> IpAddr {
        self.forwarded.as_ref().map_or(self.client.address, |forwarded| forwarded.0)
    }

    const fn is_forwarded(&self) -> bool {
        self.forwarded.is_some()
    }

    /// Counts the request for its principal.
    fn note_authenticated(&mut self, memory: &PrincipalMemory) -> Result<(), Full> {
        match &mut self.forwarded {
            None => self.client.note_authenticated(&memory.connections),
            Some(forwarded) => forwarded.1.note_authenticated(memory),
        }
    }
}

/// Returns the origin of a request, if the policy lets its pages read the answer.
fn allowed_origin(head: &Parts, policy: Option<&ActivePolicy>) -> Option<HeaderValue> {
    route::allowed_origin(&head.headers, policy?.tenant_policy())
}

/// Returns whether nothing was read of the body, which then still has the id that the answer should carry: some clients wait for
/// ever for an answer with their id, and others give up their connection on one without it.
fn is_unread(headers: &HeaderMap, body: &Incoming) -> bool {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    declared.is_some_and(|length: u64| length > 0 && body.size_hint().exact() == Some(length))
}

/// Returns the length of the largest request that a server of the tenant takes. One that is not longer gets its answer also
/// from a principal that has used up its allowance.
fn largest_request(policy: &ActivePolicy) -> usize {
    let lengths = policy.tenant_policy().servers.iter().map(|server| server.limits.max_request.get());
    lengths.max().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX))
}

/// Returns whether more of the body of a refused request may be read only to drop it, and counts that as one more refused
/// request of its principal, or as one more failure of its address.
fn may_discard(state: &State, address: IpAddr, subject: Option<(&ActivePolicy, usize)>) -> bool {
    if let Some(principal) = subject.and_then(|(policy, index)| policy.tenant_policy().principals.get(index)) {
        return state.governor.check_request(state.tick(), &principal.uid).is_ok();
    }
    let now = Instant::now();
    let admitted = state.failures.admits(address, now);
    state.failures.record(address, now);
    admitted
}

/// Takes a request through its stages. `policy` is the one that was in force when the request arrived, and afterwards the
/// one that decided, which `record` refers to.
async fn run(
    state: &Arc<State>,
    policy: &mut Arc<ActivePolicy>,
    record: &mut RequestRecord,
    origin: &mut Origin<'_>,
    (head, trace): (&Parts, HeaderTrace<'_>),
    body: &mut Incoming,
) -> Result<Response<Body>, Rejection> {
    let mut now = Moment::now();
    let mut caller = authenticate(state, policy, record, origin.address(), &head.headers, now)?;
    let share = policy.memory(caller.principal);
    origin.note_authenticated(share).map_err(|full| Rejection::from(full).and_close(head.version))?;
    let account = &share.requests;
    let mut memory = RequestMemory::admit(account, head.version == Version::HTTP_2)?;
    let within_limit = state.governor.check_request(state.tick(), &caller.principal.model().uid);
    within_limit.map_err(|denial| Rejection::too_many_requests(&denial))?;
    let mut view = find_server(policy, record, head, caller)?;
    let mut received = Content::unread(body);
    let may_leave = if origin.is_forwarded() { edge::may_leave(&head.headers) } else { state.peers.any() };
    let mut absence = if may_leave { Absence::Leave } else { Absence::Wait };
    if origin.is_forwarded() {
        if state.homes.find(&caller.principal.model().uid).await != Place::Here {
            return Ok(edge::not_home());
        }
    } else if may_leave && !state.homes.is_here(&caller.principal.model().uid) {
        // Boxed, because it would make the future of every request larger.
        let next = Box::pin(forward(state, policy, (caller, view), head, origin.client, &mut received));
        if let Forwarded::Answered(response) = next.await? {
            return Ok(response);
        }
        absence = if received.is_read() { Absence::Refuse } else { Absence::Wait };
    }
    if head.method == Method::GET {
        return resume(state, policy, caller, view, head, now);
    }
    let max_length = view.server().limits.max_request.get();
    let meter = memory.meter(account);
    let body = match received.into_read() {
        Some(body) => check_body(&body, max_length, meter).map(|()| body),
        None => read_body(&head.headers, body, max_length, meter, origin.client).await,
    }?;
    let headers = McpHeaders::read(&head.headers);
    let set_aside = OnceLock::new();
    // A body can take long to arrive, and a call can wait. Each time, what was decided before is decided again if it may
    // no longer hold.
    loop {
        let newer = state.newer_policy(policy);
        if newer.is_some() || Instant::now() >= caller.expires_at {
            if let Some(newer) = newer {
                *policy = newer;
            }
            now = Moment::now();
            // The allowance of the principal limits these requests, so each has its own audit line.
            caller = authenticate(state, policy, record, origin.address(), &head.headers, now)
                .map_err(|rejection| Rejection { trail: Trail::Own, ..rejection })?;
            view =
                find_server(policy, record, head, caller).map_err(|rejection| identify(rejection, &headers, &body))?;
            if body.len() as u64 > view.server().limits.max_request.get() {
                return Err(identify(BodyError::TooLarge.into(), &headers, &body));
            }
        }
        let meter = memory.meter(&policy.memory(caller.principal).requests);
        let Decoded { message, unreadable, trace_state, era } =
            decode(record, &headers, trace, (&body, &set_aside), meter)?;
        let context = RequestContext {
            state,
            policy,
            caller,
            view,
            now,
            length: body.len(),
            events: route::accepts(&head.headers, "text/event-stream"),
            session: headers.session.as_deref(),
            absence,
            trace_state,
            unreadable,
        };
        match methods::dispatch(&context, record, era, message).await {
            Ok(response) => return Ok(response),
            Err(Unanswered::Elsewhere) if origin.is_forwarded() => return Ok(edge::not_home()),
            Err(Unanswered::Elsewhere) => {
                let mut whole = Content::read(body.clone());
                let next = Box::pin(forward(state, policy, (caller, view), head, origin.client, &mut whole));
                if let Forwarded::Answered(response) = next.await? {
                    return Ok(response);
                }
                absence = Absence::Refuse;
            }
            // What is rejected after a wait may be rejected for another reason by now.
            Err(Unanswered::Rejected(rejection)) if !context.is_outdated() => return Err(rejection),
            Err(_) => {}
        }
    }
}

/// Forwards a request to the home of its caller.
async fn forward(
    state: &Arc<State>,
    policy: &ActivePolicy,
    (caller, view): (Caller<'_>, ServerAccess<'_>),
    head: &Parts,
    client: &Client,
    content: &mut Content<'_>,
) -> Result<Forwarded, Rejection> {
    let principal_uid = &caller.principal.model().uid;
    let account = &policy.memory(caller.principal).requests;
    let timeout = view.server().limits.timeout;
    edge::forward(EdgeRequest { state, principal_uid, account, head, client, timeout }, content).await
}

/// Identifies the caller.
fn authenticate<'p>(
    state: &State,
    policy: &'p ActivePolicy,
    record: &mut RequestRecord,
    address: IpAddr,
    headers: &HeaderMap,
    now: Moment,
) -> Result<Caller<'p>, Rejection> {
    // Indices of another policy would name other objects.
    (record.principal, record.server) = (None, None);
    let caller = check_token(&policy.compiled, &policy.token_verifier, &state.failures, address, headers, now)
        .inspect_err(|failure| record.principal = failure.principal())?;
    record.principal = Some(caller.principal.index());
    Ok(caller)
}

/// Checks the head, and finds the server in its path among those of the caller.
fn find_server<'p>(
    policy: &ActivePolicy,
    record: &mut RequestRecord,
    head: &Parts,
    caller: Caller<'p>,
) -> Result<ServerAccess<'p>, Rejection> {
    if route::foreign_origin(&head.headers, policy.tenant_policy()) {
        return Err(Rejection::head(StatusCode::FORBIDDEN, Reason::OriginRefused));
    }
    let view = route::server_name(head.uri.path())
        .ok_or(Reason::ServerUnknown)
        .and_then(|server| caller.principal.server(server))
        .map_err(|reason| Rejection::head(StatusCode::NOT_FOUND, reason))?;
    record.server = Some(view.server_index());
    route::check_media_types(&head.method, &head.headers)?;
    Ok(view)
}

/// Answers with the rest of an event stream of a legacy session. What is in it was allowed when its call was, so this
/// decides only whether the caller may still be answered at all.
fn resume(
    state: &State,
    policy: &ActivePolicy,
    caller: Caller<'_>,
    view: ServerAccess<'_>,
    head: &Parts,
    now: Moment,
) -> Result<Response<Body>, Rejection> {
    if let Some(reason) = caller.suspended {
        return Err(Rejection::head(StatusCode::FORBIDDEN, reason));
    }
    if state.is_stopped() {
        return Err(Rejection::head(StatusCode::SERVICE_UNAVAILABLE, Reason::FleetStopped));
    }
    let headers = McpHeaders::read(&head.headers);
    let owner = SessionOwner { principal_uid: &caller.principal.model().uid, server_uid: &view.server().uid };
    let session =
        headers.session.as_deref().filter(|id| policy.session_sealer.open(id, owner, now.unix_seconds()).is_ok());
    let last = head.headers.get(route::LAST_EVENT_ID).and_then(|value| EventId::parse(value.as_bytes()));
    let rest = session
        .zip(last)
        .and_then(|(id, last)| state.resumable.resume(state.legacy_calls.session(owner.principal_uid, id), last));
    // As if there were no streams to resume: a client that gets this does not try again. Unlike other requests with GET, this
    // one asked for something, so it is audited.
    rest.map(event_stream).ok_or_else(|| Rejection { trail: Trail::Own, ..HeadError::Method.into() })
}

/// Adds the id of a request whose body was read to a rejection that was made without it.
fn identify(rejection: Rejection, headers: &McpHeaders, body: &[u8]) -> Rejection {
    match Id::of_rejected(body) {
        Some(id) => rejection.with_id(&id, headers.are_modern()),
        None => rejection,
    }
}

/// A message, and what its headers and its body say together.
struct Decoded<'b> {
    message: Message<'b>,
    /// What is wrong with the arguments of a call, if they are not part of the message for that.
    unreadable: Option<&'b Unreadable>,
    trace_state: StateSource<'b>,
    era: Era,
}

/// Parses the message in the body, and detects its trace and its revision from headers and message together.
fn decode<'b>(
    record: &mut RequestRecord,
    headers: &McpHeaders,
    trace: HeaderTrace<'b>,
    (body, set_aside): (&'b [u8], &'b OnceLock<SetAside>),
    mut meter: Meter<'_>,
) -> Result<Decoded<'b>, Rejection> {
    let mut full = None;
    let mut reserve = |values| meter.reserve_values(values).map_err(|error| full = Some(error)).is_ok();
    let message = read_message_or_rest(body, set_aside, FREE_VALUES, &mut reserve);
    if let Some(full) = full {
        return Err(identify(full.into(), headers, body));
    }
    let (message, unreadable) =
        message.map_err(|invalid| Rejection::invalid_message(&invalid, headers.are_modern()))?;
    record.method = known_method(&message.method).ok_or_else(|| message.method.clone());
    let (parent, trace_state) = trace.of_message(&message.params);
    record.trace = TraceContext::new(record.call, parent);
    let era = detect_era(headers, &message).map_err(|wrong| Rejection::wrong_revision(message.id(), &wrong))?;
    Ok(Decoded { message, unreadable, trace_state, era })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the size of the future of a function.
    fn size_of_future<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_is_rare_does_not_make_the_future_of_every_request_larger() {
        let size = size_of_future(answer);
        assert!(size <= 12 * 1024, "{size} bytes");
    }

    #[test]
    fn the_documented_stages_are_those_of_the_reasons() {
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
