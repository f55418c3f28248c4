//! The closed set of reasons for which a call is refused or fails.
//!
//! A reason is an answer that a machine can act on: it stands in audit lines, in metric labels, in
//! `_meta["mcp-fleet.dev/denial"]` and in the text a model reads. `docs/reasons.md` has one row for each, and a test
//! holds that table and this enum together.

/// Declares the enum, its stable names, and what the caller is told to do next, in one place.
macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $stage:ident, $hint:literal; )*) => {
        /// Why a call was refused, or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $( $(#[$doc])* $variant, )* }

        impl Reason {
            /// Every reason, in the order in which the stages of a call can give them.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The stable name: `snake_case`, never changed once released.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// The stage that gives it.
            pub const fn stage(self) -> Stage {
                match self { $( Self::$variant => Stage::$stage, )* }
            }

            /// What the caller should do next, as one sentence for a model to read.
            pub const fn hint(self) -> &'static str {
                match self { $( Self::$variant => $hint, )* }
            }

            /// The reason of that stable name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $( $name => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

/// A stage in the life of a call (`listen → authenticate → decode → authorise → validate → govern → forward →
/// settle`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The policy itself is missing, old or suspends the tenant.
    Policy,
    /// The bearer token, from headers alone.
    Authenticate,
    /// The HTTP request and the JSON-RPC message.
    Decode,
    /// Scopes and catalogue.
    Authorise,
    /// The arguments of an authorised tool.
    Validate,
    /// Rates, concurrency and money.
    Govern,
    /// The upstream server.
    Forward,
    /// The audit line.
    Audit,
}

impl Stage {
    /// The name as it stands in `docs/reasons.md`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Authenticate => "authenticate",
            Self::Decode => "decode",
            Self::Authorise => "authorise",
            Self::Validate => "validate",
            Self::Govern => "govern",
            Self::Forward => "forward",
            Self::Audit => "audit",
        }
    }
}

reasons! {
    /// The gateway has no policy yet.
    PolicyMissing = "policy_missing", Policy, "Wait and try again: the gateway has not received its policy yet.";
    /// The newest policy is older than the tenant's `policy.staleAfter` for this class of tool.
    PolicyStale = "policy_stale", Policy, "Wait and try again: the gateway lost touch with its operator and refuses rather than enforce an old policy.";
    /// The tenant is suspended.
    TenantSuspended = "tenant_suspended", Policy, "Stop: the tenant is suspended. Ask the platform team.";

    /// No bearer token.
    TokenMissing = "token_missing", Authenticate, "Send the credential as `Authorization: Bearer <token>`.";
    /// Not a token this gateway can read, or its signature is wrong, or its key is unknown.
    TokenInvalid = "token_invalid", Authenticate, "Read the credential Secret again and use its current token.";
    /// The token is for another audience or from another issuer: another tenant's, mostly.
    TokenWrongAudience = "token_wrong_audience", Authenticate, "Use the credential that was issued for this tenant's endpoint.";
    /// The token's `exp` has passed.
    TokenExpired = "token_expired", Authenticate, "Read the credential Secret again and use its current token.";
    /// The token was issued before its principal's `revokeIssuedBefore`.
    TokenRevoked = "token_revoked", Authenticate, "Read the credential Secret again; the token in use has been revoked.";
    /// The token names a principal that does not exist (any more).
    PrincipalUnknown = "principal_unknown", Authenticate, "Ask the platform team for a principal.";
    /// The principal is suspended.
    PrincipalSuspended = "principal_suspended", Authenticate, "Stop: this principal is suspended. Ask its owner.";

    /// An `Origin` header that is not the tenant's endpoint.
    OriginRefused = "origin_refused", Decode, "Browsers of other origins are refused; call without an Origin header.";
    /// An HTTP method, path, content type or header that the endpoint does not take.
    RequestInvalid = "request_invalid", Decode, "Send MCP over Streamable HTTP: POST, JSON, and the headers of the protocol revision.";
    /// Not one well-formed JSON-RPC message of the revision.
    MessageInvalid = "message_invalid", Decode, "Send one well-formed JSON-RPC message with unique keys.";
    /// The body is larger than the server's `limits.maxRequestSize`.
    RequestTooLarge = "request_too_large", Decode, "Send a smaller request.";
    /// A protocol revision that is not offered.
    VersionUnsupported = "version_unsupported", Decode, "Use one of the protocol revisions the error lists.";
    /// An MCP method that is not offered.
    MethodUnknown = "method_unknown", Decode, "Use only the methods that the server's capabilities announce.";
    /// A legacy session id that was not sealed by this tenant for this principal, or is too old.
    SessionInvalid = "session_invalid", Decode, "Initialize a new session.";

    /// No server of that name that the principal may use.
    ServerUnknown = "server_unknown", Authorise, "Check the server name in the URL.";
    /// The catalogue of the server does not declare the tool.
    ToolUnknown = "tool_unknown", Authorise, "Call only tools that tools/list shows.";
    /// No held scope grants the tool.
    ToolNotGranted = "tool_not_granted", Authorise, "Call only tools that tools/list shows.";

    /// An argument that is not declared for this caller.
    ArgumentUndeclared = "argument_undeclared", Validate, "Leave the argument out; tools/list shows which ones are accepted.";
    /// A required argument is missing.
    ArgumentMissing = "argument_missing", Validate, "Add the missing argument.";
    /// An argument of the wrong JSON type.
    ArgumentType = "argument_type", Validate, "Send the argument with the JSON type that tools/list shows.";
    /// A value outside an enumeration, or not the constant.
    ArgumentNotAllowed = "argument_not_allowed", Validate, "Use one of the values that tools/list shows.";
    /// A number outside its range, or a string, array or object outside its length.
    ArgumentOutOfRange = "argument_out_of_range", Validate, "Keep the value within the limits that tools/list shows.";
    /// A string that does not match its pattern, or that could be read as an option.
    ArgumentPattern = "argument_pattern", Validate, "Send a value that matches the pattern that tools/list shows and does not start with a dash.";
    /// A path that is not under a granted root, lexically or by a link.
    PathOutsideRoots = "path_outside_roots", Validate, "Use an absolute path below one of the roots that tools/list shows, without links.";

    /// The principal calls too often.
    RateLimited = "rate_limited", Govern, "Slow down and try again after the given time.";
    /// The principal has too many calls in flight.
    ConcurrencyLimited = "concurrency_limited", Govern, "Wait for your other calls to end, then try again.";
    /// The tenant as a whole calls too often.
    TenantRateLimited = "tenant_rate_limited", Govern, "Try again after the given time; the whole tenant is at its limit.";
    /// The tenant as a whole has too many calls in flight.
    TenantConcurrencyLimited = "tenant_concurrency_limited", Govern, "Try again later; the whole tenant is at its limit.";
    /// The server has too many calls in flight.
    ServerConcurrencyLimited = "server_concurrency_limited", Govern, "Try again later; the server is busy.";
    /// A budget that covers the call has no room left in its period.
    BudgetExhausted = "budget_exhausted", Govern, "Stop calling priced tools until the budget resets, or ask its owner to raise it.";
    /// No lease could be had from the ledger in time, so the money cannot be accounted for.
    BudgetUnavailable = "budget_unavailable", Govern, "Try again later: the ledger cannot be reached.";
    /// The tool has a price, and neither a budget nor the tenant's spend limit covers it.
    PriceUncovered = "price_uncovered", Govern, "Ask the platform team for a budget that covers this tool.";

    /// The server cannot be reached or broke the connection. The call may have been made.
    UpstreamUnavailable = "upstream_unavailable", Forward, "The tool server is not available. The call may or may not have taken effect; check before trying again.";
    /// The server did not answer within `limits.timeout`. The call may have been made.
    UpstreamTimeout = "upstream_timeout", Forward, "The tool did not answer in time. The call may or may not have taken effect; check before trying again.";
    /// The server answered something that is not MCP.
    UpstreamInvalid = "upstream_invalid", Forward, "The tool server gave an answer that could not be checked. The call may have taken effect.";
    /// The result is larger than `limits.maxResponseSize`.
    ResponseTooLarge = "response_too_large", Forward, "Ask for less; the result was larger than the limit and was withheld.";
    /// The caller cancelled or went away. The call may have been made.
    Cancelled = "cancelled", Forward, "The call was cancelled; it may or may not have taken effect.";

    /// The audit sink is blocked, and what cannot be audited is denied.
    AuditUnavailable = "audit_unavailable", Audit, "Try again later: calls cannot be audited right now.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_own_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
    }

    #[test]
    fn the_table_for_users_has_exactly_these_reasons() {
        let table = include_str!("../../../docs/reasons.md");
        let rows: Vec<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name)).collect();
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(rows, names);
    }
}
