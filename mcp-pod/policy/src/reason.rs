//! The closed set of reasons for which a call is refused or fails.
//!
//! Reasons are machine-readable: they appear in audit lines, in metric labels, in `_meta["mcp-fleet.dev/denial"]` and
//! in the text that a model reads. The table in `docs/reasons.md` has one row for each; a test compares it with this
//! enum.

/// Declares the enum with its stable names, stages and hints in one place.
macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $stage:ident, $hint:literal; )*) => {
        /// Why a call was refused or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $( $(#[$doc])* $variant, )* }

        impl Reason {
            /// Every reason, in the order of the stages.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// Returns the stable name: `snake_case`, never changed once released.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// Returns the stage in which the reason occurs.
            pub const fn stage(self) -> Stage {
                match self { $( Self::$variant => Stage::$stage, )* }
            }

            /// Returns what the caller should do next, as text for a model.
            pub const fn hint(self) -> &'static str {
                match self { $( Self::$variant => $hint, )* }
            }

            /// Returns the reason with this stable name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $( $name => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

/// A stage in the life of a request, in the order in which the gateway runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// What holds for every caller: the policy is missing or stale, or the tenant or the whole fleet is stopped.
    Policy,
    /// The bearer token, checked from the headers alone.
    Authenticate,
    /// The HTTP request and the JSON-RPC message.
    Decode,
    /// Scopes and catalogue.
    Authorise,
    /// The arguments of an authorised tool.
    Validate,
    /// Rates, concurrency and budgets.
    Govern,
    /// The upstream server.
    Forward,
    /// The audit line.
    Audit,
}

impl Stage {
    /// Returns the name as it appears in `docs/reasons.md`.
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
    /// The operator last confirmed the policy longer ago than the tenant's `policy.staleAfter` allows for this class of
    /// tool.
    PolicyStale = "policy_stale", Policy, "Wait and try again: the gateway has lost contact with the operator and refuses calls rather than enforce an old policy.";
    /// The tenant is suspended.
    TenantSuspended = "tenant_suspended", Policy, "Stop: the tenant is suspended. Ask the platform team.";
    /// The kill switch of the fleet is on.
    FleetStopped = "fleet_stopped", Policy, "Stop: no tool can be called until the platform team allows calls again. Trying again before does not help.";

    /// The request has no bearer token.
    TokenMissing = "token_missing", Authenticate, "Send the credential as `Authorization: Bearer <token>`.";
    /// The gateway cannot read the token, its signature is wrong, or its key is unknown.
    TokenInvalid = "token_invalid", Authenticate, "Read the credential Secret again and use its current token.";
    /// The token is for another audience or from another issuer: usually another tenant's.
    TokenWrongAudience = "token_wrong_audience", Authenticate, "Use the credential that was issued for this tenant's endpoint.";
    /// The token's `exp` has passed.
    TokenExpired = "token_expired", Authenticate, "Read the credential Secret again and use its current token.";
    /// The token was issued before its principal's `revokeIssuedBefore`.
    TokenRevoked = "token_revoked", Authenticate, "Read the credential Secret again; the token in use has been revoked.";
    /// The token names a principal that does not exist, or no longer exists.
    PrincipalUnknown = "principal_unknown", Authenticate, "Ask the platform team for a principal.";
    /// The principal is suspended.
    PrincipalSuspended = "principal_suspended", Authenticate, "Stop: this principal is suspended. Ask its owner.";

    /// The `Origin` header is neither the tenant's endpoint nor one of its allowed origins.
    OriginRefused = "origin_refused", Decode, "Requests of web pages are refused unless the tenant allows their origin (endpoint.allowedOrigins); call without an Origin header.";
    /// The endpoint does not accept the HTTP method, path, content type or a header.
    RequestInvalid = "request_invalid", Decode, "Send MCP over Streamable HTTP: POST, JSON, and the headers of the protocol revision.";
    /// The body is not one well-formed JSON-RPC message of the protocol revision.
    MessageInvalid = "message_invalid", Decode, "Send one well-formed JSON-RPC message with unique keys.";
    /// The body is larger than the server's `limits.maxRequestSize`.
    RequestTooLarge = "request_too_large", Decode, "Send a smaller request.";
    /// The protocol revision is not offered.
    VersionUnsupported = "version_unsupported", Decode, "Use one of the protocol revisions the error lists.";
    /// The MCP method is not offered.
    MethodUnknown = "method_unknown", Decode, "Use only the methods that the server's capabilities announce.";
    /// The legacy session id was not sealed by this tenant for this principal, or is too old.
    SessionInvalid = "session_invalid", Decode, "Initialize a new session.";

    /// There is no server with this name that the principal may use.
    ServerUnknown = "server_unknown", Authorise, "Check the server name in the URL.";
    /// The catalogue of the server does not declare the tool.
    ToolUnknown = "tool_unknown", Authorise, "Call only tools that tools/list shows.";
    /// No held scope grants the tool.
    ToolNotGranted = "tool_not_granted", Authorise, "Call only tools that tools/list shows.";

    /// An argument is not declared for this caller.
    ArgumentUndeclared = "argument_undeclared", Validate, "Leave the argument out; tools/list shows which ones are accepted.";
    /// A required argument is missing.
    ArgumentMissing = "argument_missing", Validate, "Add the missing argument.";
    /// An argument has the wrong JSON type.
    ArgumentType = "argument_type", Validate, "Send the argument with the JSON type that tools/list shows.";
    /// A value is not in the enumeration, or is not the constant.
    ArgumentNotAllowed = "argument_not_allowed", Validate, "Use one of the values that tools/list shows.";
    /// A number is outside its range, or a string or array is too long.
    ArgumentOutOfRange = "argument_out_of_range", Validate, "Keep the value within the limits that tools/list shows.";
    /// A string does not match its pattern, contains refused characters, or could be read as an option.
    ArgumentPattern = "argument_pattern", Validate, "Send a value that matches the pattern that tools/list shows and does not start with a dash.";
    /// A path is not below a granted root, either as written or because of a link.
    PathOutsideRoots = "path_outside_roots", Validate, "Use an absolute path below one of the roots that tools/list shows, without symbolic links.";

    /// It is being decided which gateway may admit the principal's calls, or this gateway cannot reach the operator.
    HomeUndecided = "home_undecided", Govern, "Try again after the given time: another gateway is taking over, or has just done so.";
    /// The principal calls too often.
    RateLimited = "rate_limited", Govern, "Slow down and try again after the given time.";
    /// The principal has too many calls in flight, over all servers or on this one.
    ConcurrencyLimited = "concurrency_limited", Govern, "Wait for your other calls to end, also for cancelled ones, then try again.";
    /// The call continues a loop: the last ones had no new result.
    LoopDetected = "loop_detected", Govern, "Stop repeating this: use another tool or other arguments, or tell a person that you are stuck.";
    /// The tenant as a whole calls too often.
    TenantRateLimited = "tenant_rate_limited", Govern, "Try again after the given time; the whole tenant is at its limit.";
    /// The tenant as a whole has too many calls in flight.
    TenantConcurrencyLimited = "tenant_concurrency_limited", Govern, "Try again later; the whole tenant is at its limit.";
    /// The server has too many calls in flight.
    ServerConcurrencyLimited = "server_concurrency_limited", Govern, "Try again later; the server is busy.";
    /// The breaker of the tool is open: too many of the latest calls failed, or were slow.
    BreakerOpen = "breaker_open", Govern, "Wait for the given time before calling this tool again; it fails or is too slow at the moment. Use another tool meanwhile.";
    /// The principal reported that it is stuck, and the cool-down is not over.
    ReportedStuck = "reported_stuck", Govern, "Stop calling until the given time, or until a person has cleared your report. `fleet_status` still answers.";
    /// The gateway has no memory left for the request.
    GatewayBusy = "gateway_busy", Govern, "Try again later: the gateway has no memory left for this request.";
    /// A budget that covers the call does not have enough left in its period.
    BudgetExhausted = "budget_exhausted", Govern, "Stop calling priced tools until the budget resets, or ask its owner to raise it.";
    /// The ledger granted no lease in time, so the spend cannot be accounted for.
    BudgetUnavailable = "budget_unavailable", Govern, "Try again later: the ledger cannot be reached.";
    /// The tool has a price, and neither a budget nor the tenant's spend limit covers it.
    PriceUncovered = "price_uncovered", Govern, "Ask the platform team for a budget that covers this tool.";

    /// The gateway that is the home of the principal was lost while it had the request. The call may have been made.
    HomeLost = "home_lost", Forward, "The connection to the gateway that handles your calls was lost. The call may or may not have taken effect; check before trying again.";
    /// The server cannot be reached or broke the connection. The call may have been made.
    UpstreamUnavailable = "upstream_unavailable", Forward, "The tool server is not available. The call may or may not have taken effect; check before trying again.";
    /// The server did not answer within `limits.timeout`. The call may have been made.
    UpstreamTimeout = "upstream_timeout", Forward, "The tool did not answer in time. The call may or may not have taken effect; check before trying again.";
    /// The server's answer is not valid MCP.
    UpstreamInvalid = "upstream_invalid", Forward, "The tool server's answer was not valid MCP. The call may have taken effect.";
    /// The result is larger than `limits.maxResponseSize`.
    ResponseTooLarge = "response_too_large", Forward, "Ask for less; the result was larger than the limit and was withheld.";
    /// The caller cancelled the call or disconnected. The call may have been made.
    Cancelled = "cancelled", Forward, "The call was cancelled; it may or may not have taken effect.";

    /// The audit sink is blocked, and calls that cannot be audited are refused.
    AuditUnavailable = "audit_unavailable", Audit, "Try again later: calls cannot be audited right now.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
    }

    #[test]
    fn the_documented_table_has_exactly_these_reasons() {
        let table = include_str!("../../../docs/reasons.md");
        let rows: Vec<&str> =
            table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name)).collect();
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(rows, names);
    }
}
