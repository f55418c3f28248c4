//! How any stage ends a request.

use http::Response;
use mcp_fleet_policy::reason::Reason;

use super::respond::Body;

/// A request that ends here: what its caller hears, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(super) reason: Reason,
    pub(super) response: Box<Response<Body>>,
    /// One of a flood: each is counted, and one a second audited.
    pub(super) flood: bool,
}

impl Refused {
    pub(crate) fn new(reason: Reason, response: Response<Body>) -> Self {
        Self { reason, response: Box::new(response), flood: false }
    }
}
