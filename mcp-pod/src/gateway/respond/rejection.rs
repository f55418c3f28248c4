//! The end of a request that is not allowed: any stage before forwarding returns a [`Rejection`].

use std::time::Duration;

use http::header::{ALLOW, CONNECTION};
use http::{HeaderValue, Response, StatusCode, Version};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::reason::Reason;

use super::{Body, Failure, add_id, denied_request, error, unauthorised};
use crate::gateway::memory::Full;
use crate::gateway::request::{BodyError, EraError, HeadError, Id, InvalidMessage, Unauthenticated};

/// Retry time if there is no memory, because it is unknown when there will be.
const MEMORY_RETRY: Duration = Duration::from_secs(1);
/// Retry time if there is no policy yet.
const POLICY_RETRY: Duration = Duration::from_secs(1);
/// Retry time for an address with too many failures.
const FAILURES_RETRY: Duration = Duration::from_secs(5);

/// Why a request ends, and its answer.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) reason: Reason,
    pub(crate) response: Box<Response<Body>>,
    pub(crate) trail: Trail,
}

/// The audit lines of a rejection. All rejections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trail {
    /// A line of its own.
    Own,
    /// One line for many: clients can multiply such requests at little cost.
    Shared,
    /// None: the request was not meant for an endpoint, and asked for nothing.
    Absent,
}

impl Rejection {
    pub(crate) fn new(reason: Reason, response: Response<Body>) -> Self {
        Self { reason, response: Box::new(response), trail: Trail::Own }
    }

    /// Rejects a request because of its head alone.
    pub(crate) fn head(status: StatusCode, reason: Reason) -> Self {
        Self::new(reason, denied_request(None, status, &Denial::new(reason)))
    }

    /// Rejects a request because of its head alone, for some time.
    fn head_for_now(status: StatusCode, denial: &Denial) -> Self {
        Self::new(denial.reason, denied_request(None, status, denial)).of_flood()
    }

    /// Rejects every request while there is no policy to authenticate it with.
    pub(crate) fn no_policy() -> Self {
        let denial = Denial { retry_after: Some(POLICY_RETRY), ..Denial::new(Reason::PolicyMissing) };
        Self::head_for_now(StatusCode::SERVICE_UNAVAILABLE, &denial)
    }

    /// Rejects a request of a principal that sends too many.
    pub(crate) fn too_many_requests(denial: &Denial) -> Self {
        Self::head_for_now(StatusCode::TOO_MANY_REQUESTS, denial)
    }

    /// Rejects a request for which there is no memory.
    fn no_memory(full: Full) -> Self {
        let (status, denial) = match full {
            Full::Share(limit) => {
                let limit = format!("this principal may use {} MiB of the gateway's memory at a time", limit >> 20);
                (StatusCode::TOO_MANY_REQUESTS, Denial::new(Reason::ConcurrencyLimited).with_limit(limit))
            }
            Full::Process => (StatusCode::SERVICE_UNAVAILABLE, Denial::new(Reason::GatewayBusy)),
        };
        Self::head_for_now(status, &Denial { retry_after: Some(MEMORY_RETRY), ..denial })
    }

    /// Rejects a request that policy denies and that is not a tool call.
    pub(crate) fn denied(id: &Id, denial: &Denial) -> Self {
        Self::new(denial.reason, denied_request(Some(id), StatusCode::OK, denial))
    }

    /// Rejects the parameters of a request.
    pub(crate) fn invalid_params(id: &Id, text: &str) -> Self {
        let failure = Failure { status: StatusCode::OK, code: -32602, message: text, data: None };
        Self::new(Reason::MessageInvalid, error(Some(id), &failure))
    }

    /// Rejects a method that is not offered in the revision of the request.
    pub(crate) fn unknown_method(id: &Id, status: StatusCode) -> Self {
        let failure = Failure { status, code: -32601, message: "Method not found", data: None };
        Self::new(Reason::MethodUnknown, error(Some(id), &failure))
    }

    /// Rejects a message whose headers and `_meta` do not agree on a revision.
    pub(crate) fn wrong_revision(id: Option<&Id>, wrong: &EraError) -> Self {
        let (text, data) = (wrong.to_string(), wrong.data());
        let failure =
            Failure { status: StatusCode::BAD_REQUEST, code: wrong.code(), message: &text, data: data.as_deref() };
        let reason = if data.is_some() { Reason::VersionUnsupported } else { Reason::RequestInvalid };
        Self::new(reason, error(id, &failure))
    }

    /// Rejects a body that is not a valid message. In the revisions before 2026-07-28, an error with an id is a usual answer:
    /// with another status than 200, some clients give up their connection and not only the request.
    pub(crate) fn invalid_message(invalid: &InvalidMessage, modern: bool) -> Self {
        let InvalidMessage { id, code, text, error: _ } = invalid;
        let status = if id.is_some() && !modern { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        let failure = Failure { status, code: *code, message: text, data: None };
        Self::new(Reason::MessageInvalid, error(id.as_ref(), &failure))
    }

    /// Lets the connection close after the answer. HTTP/2 has no header for that.
    pub(crate) fn and_close(mut self, version: Version) -> Self {
        if version < Version::HTTP_2 {
            self.response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self
    }

    /// Adds the id of the request to an answer without one: see [`add_id`].
    pub(crate) fn with_id(mut self, id: &Id, is_modern: bool) -> Self {
        add_id(&mut self.response, id, is_modern);
        self
    }

    fn of_flood(self) -> Self {
        Self { trail: Trail::Shared, ..self }
    }
}

impl From<Unauthenticated> for Rejection {
    fn from(why: Unauthenticated) -> Self {
        match why {
            Unauthenticated::Rejected { reason, principal: _ } => Self::new(reason, unauthorised(reason)).of_flood(),
            Unauthenticated::TooManyFailures => {
                let denial = Denial { retry_after: Some(FAILURES_RETRY), ..Denial::new(Reason::TokenInvalid) };
                Self::head_for_now(StatusCode::TOO_MANY_REQUESTS, &denial)
            }
        }
    }
}

impl From<Full> for Rejection {
    fn from(full: Full) -> Self {
        Self::no_memory(full)
    }
}

impl From<HeadError> for Rejection {
    fn from(error: HeadError) -> Self {
        let status = match error {
            HeadError::Path => StatusCode::NOT_FOUND,
            HeadError::Method => StatusCode::METHOD_NOT_ALLOWED,
            HeadError::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            HeadError::Accept => StatusCode::NOT_ACCEPTABLE,
        };
        let mut rejection = Self::head(status, Reason::RequestInvalid);
        if error == HeadError::Method {
            rejection.response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if matches!(error, HeadError::Path | HeadError::Method) {
            rejection.trail = Trail::Absent;
        }
        rejection
    }
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::head(StatusCode::PAYLOAD_TOO_LARGE, Reason::RequestTooLarge),
            BodyError::NoMemory(full) => full.into(),
            BodyError::TimedOut => Self::head(StatusCode::REQUEST_TIMEOUT, Reason::RequestInvalid),
            BodyError::Broken(_) => Self::head(StatusCode::BAD_REQUEST, Reason::RequestInvalid),
        }
    }
}
