//! The end of a request that is not allowed: any stage before forwarding returns a [`Rejection`].

use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::reason::Reason;

use super::{Body, Failure, denied_request, error, unauthorised};
use crate::gateway::request::{BodyError, EraError, HeadError, Id, InvalidMessage, Unauthenticated};

/// Why a request ends, and its answer.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) reason: Reason,
    pub(crate) response: Box<Response<Body>>,
    /// Whether clients can multiply such requests at little cost. They share audit lines; all are counted.
    pub(crate) flood: bool,
}

impl Rejection {
    pub(crate) fn new(reason: Reason, response: Response<Body>) -> Self {
        Self { reason, response: Box::new(response), flood: false }
    }

    /// Rejects a request because of its head alone.
    pub(crate) fn head(status: StatusCode, reason: Reason) -> Self {
        Self::new(reason, denied_request(None, status, &Denial::new(reason)))
    }

    /// Rejects every request while there is no policy to authenticate it with: the only 503.
    pub(crate) fn no_policy() -> Self {
        Self::head(StatusCode::SERVICE_UNAVAILABLE, Reason::PolicyMissing).with_retry_after("1").of_flood()
    }

    /// Rejects a request of a principal that sends too many.
    pub(crate) fn too_many_requests(denial: &Denial) -> Self {
        Self::new(denial.reason, denied_request(None, StatusCode::TOO_MANY_REQUESTS, denial)).of_flood()
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

    fn of_flood(self) -> Self {
        Self { flood: true, ..self }
    }

    fn with_retry_after(mut self, seconds: &'static str) -> Self {
        self.response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        self
    }
}

impl From<Unauthenticated> for Rejection {
    fn from(why: Unauthenticated) -> Self {
        match why {
            Unauthenticated::Rejected { reason, principal: _ } => Self::new(reason, unauthorised(reason)).of_flood(),
            Unauthenticated::TooManyFailures => {
                Self::head(StatusCode::TOO_MANY_REQUESTS, Reason::TokenInvalid).with_retry_after("5").of_flood()
            }
        }
    }
}

impl From<HeadError> for Rejection {
    fn from(error: HeadError) -> Self {
        let status = match error {
            HeadError::Method => StatusCode::METHOD_NOT_ALLOWED,
            HeadError::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            HeadError::Accept => StatusCode::NOT_ACCEPTABLE,
        };
        let mut rejection = Self::head(status, Reason::RequestInvalid);
        if error == HeadError::Method {
            rejection.response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        rejection
    }
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::head(StatusCode::PAYLOAD_TOO_LARGE, Reason::RequestTooLarge),
            BodyError::TimedOut => Self::head(StatusCode::REQUEST_TIMEOUT, Reason::RequestInvalid),
            BodyError::Broken(_) => Self::head(StatusCode::BAD_REQUEST, Reason::RequestInvalid),
        }
    }
}

impl From<InvalidMessage> for Rejection {
    fn from(invalid: InvalidMessage) -> Self {
        let InvalidMessage { id, code, text } = invalid;
        let failure = Failure { status: StatusCode::BAD_REQUEST, code, message: &text, data: None };
        Self::new(Reason::MessageInvalid, error(id.as_ref(), &failure))
    }
}
