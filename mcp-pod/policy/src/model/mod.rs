//! The policy of one tenant as plain data: the operator compiles and publishes it, the gateway enforces it.
//!
//! Start at [`TenantPolicy`]. What many objects have in common is stored once and shared: the grants of a scope by the
//! principals that hold it, and equal lists of arguments by the tools. The values are already checked: patterns compile and references resolve by UID. The
//! gateway builds its lookup tables from them once per generation ([`crate::engine`]). The crate `mcp-fleet-control`
//! converts them to and from the wire and computes the digest.

mod rule;
mod shown;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use rule::{Argument, ArrayRule, Decimal, JsonRule, MapRule, PathRule, Rule, Scalar, StringRule};
pub use shown::{DefinitionDigest, Shown};

use crate::class::Class;
use crate::loops::{LoopSettings, Polls};
use crate::price::ResultPrice;
use crate::units::{Bytes, Currency, Micros};

/// UID of a Kubernetes object.
pub type Uid = String;

/// Most names besides the one in the cluster: the one that is wanted or in use, and 16 former ones.
pub const MAX_OTHER_AUDIENCES: usize = 17;

/// Everything a gateway needs to decide the calls of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Name of the tenant, for audit lines and labels.
    pub tenant: String,
    /// UID of the tenant. Tokens of a deleted tenant are not valid for a new one with the same name.
    pub tenant_uid: Uid,
    /// Number of the publication, increasing by one. A gateway never goes back to a lower generation.
    pub generation: u64,
    /// Whether every call is refused.
    pub suspended: bool,
    /// `aud` of the tenant's tokens: the origin of its endpoint, without a trailing slash.
    pub audience: String,
    /// Further origins that are accepted as `aud`: of the public name, and of former ones while tokens for them may be valid.
    /// At most [`MAX_OTHER_AUDIENCES`], without duplicates. The gateway also serves these host names.
    pub other_audiences: Vec<String>,
    /// `iss` of the tenant's tokens.
    pub issuer: String,
    /// Keys that verify the tenant's tokens: the current one, and earlier ones whose tokens have not all expired.
    pub keys: Vec<VerificationKey>,
    /// Key that seals legacy session ids: 32 random bytes, one key per tenant.
    pub session_key: Vec<u8>,
    /// Limits over all principals of the tenant.
    pub traffic: TenantLimits,
    /// Whether its endpoints have the built-in tools ([`crate::built_in`]).
    pub built_in_tools: bool,
    /// Origins of web pages whose scripts may call the servers, as browsers send them.
    pub allowed_origins: Vec<String>,
    /// Maximum age of the last proof of freshness.
    pub stale_after: StaleAfter,
    /// Currency of all prices and budgets; absent if nothing has a price.
    pub currency: Option<Currency>,
    pub servers: Vec<Server>,
    pub principals: Vec<Principal>,
    /// The budgets, including the tenant's spend limit.
    pub budgets: Vec<Budget>,
}

impl TenantPolicy {
    /// Returns whether an origin is one of this tenant's endpoint, so that tokens for it are accepted.
    pub fn accepts_audience(&self, origin: &str) -> bool {
        self.audience == origin || self.other_audiences.iter().any(|other| other == origin)
    }
}

/// A public key for verifying ES256 signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKey {
    /// `kid` of the tokens that the key verifies.
    pub kid: String,
    /// Uncompressed P-256 point: 65 bytes that begin with 4 (SEC 1, 2.3.3).
    pub point: Vec<u8>,
}

/// Limits of the tenant as a whole; an absent limit is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Calls per minute.
    pub calls_per_minute: Option<u32>,
    /// Calls in flight.
    pub max_concurrent_calls: Option<u32>,
}

/// Maximum age of the proof of freshness; calls are refused if it is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleAfter {
    /// For tools of class Read, and for listing.
    pub read: Duration,
    /// For the other classes.
    pub write: Duration,
}

/// One MCP server of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name of the server; its path on the gateway is `/<name>/mcp`.
    pub name: String,
    /// UID of the `MCPServer`.
    pub uid: Uid,
    /// Addresses of the shims in the server's pods; empty while no pod has one. They say where to connect, and nothing
    /// about who answers there: that is what `identity` is for.
    pub addresses: Vec<SocketAddr>,
    /// URI SAN that the shim's certificate must carry, compared exactly.
    pub identity: String,
    /// The catalogue. A tool that is not in it does not exist.
    pub tools: Vec<Tool>,
    pub limits: ServerLimits,
    /// When the breakers of the tools open and close.
    pub breaker: Breaker,
    /// How loops of calls are treated.
    pub loops: LoopSettings,
}

impl Server {
    /// Returns the tool of this name ([`Tool::name`]).
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Returns the tool that callers know by this name ([`Tool::wire_name`]).
    pub fn tool_on_wire(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.wire_name() == name)
    }
}

/// Settings of the circuit breakers of a server's tools ([`crate::breaker`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Share of failed calls, in percent, from which on a breaker opens: 1 to 100.
    pub error_percent: u32,
    /// Slow calls from which on the caller's own breaker opens; absent if no call is slow.
    pub slow_calls: Option<SlowCalls>,
    /// Number of the latest calls that count, 2 to 100. With fewer calls, a breaker does not open.
    pub minimum_calls: u32,
    /// Time for which an open breaker refuses all calls.
    pub open_for: Duration,
    /// Calls that a half-open breaker lets through at a time, 2 to 10; so many have to be answered to close it.
    pub half_open_calls: u32,
}

impl Breaker {
    /// The settings of a server that does not have its own.
    pub const DEFAULT: Self = Self {
        error_percent: 50,
        slow_calls: None,
        minimum_calls: 20,
        open_for: Duration::from_secs(30),
        half_open_calls: 3,
    };
}

impl Default for Breaker {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which calls are slow, and how many of them may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCalls {
    /// Share of slow calls, in percent, from which on a breaker opens: 1 to 100.
    pub percent: u32,
    /// Time at the server from which on a call is slow.
    pub duration: Duration,
}

/// Limits of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Time from the forwarding of a call to its result.
    pub timeout: Duration,
    /// Size of a request body to the gateway.
    pub max_request: Bytes,
    /// Size of a result as the server wrote it.
    pub max_response: Bytes,
    /// Calls in flight over all principals.
    pub max_concurrent_calls: u32,
}

/// A tool of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name of the tool on the server. Grants, audit lines, metrics and digests use it.
    pub name: String,
    /// Name for callers, if they know the tool by another one: in `tools/list`, `tools/call` and what they are told.
    pub alias: Option<String>,
    pub class: Class,
    /// Arguments of the tool; any other argument is refused.
    pub arguments: Arc<[Argument]>,
    /// Price of one call; the most that it costs, if the result states the price.
    pub price: Micros,
    /// Where the result states the price; absent if each call costs the same.
    pub result_price: Option<Arc<ResultPrice>>,
    /// How polls whose result does not change are treated.
    pub polls: Polls,
    /// What agents read about it; what is absent is the server's own.
    pub shown: Option<Arc<Shown>>,
    /// Digest of the server's definition of the tool. Agents see texts of no other definition.
    pub definition: Option<DefinitionDigest>,
}

impl Tool {
    /// Returns the name by which callers know the tool.
    pub fn wire_name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }
}

/// A principal: an identity that may call tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Namespace of the `MCPPrincipal`.
    pub namespace: String,
    /// Name of the `MCPPrincipal`.
    pub name: String,
    /// UID of the `MCPPrincipal`; all state of the principal is keyed by it.
    pub uid: Uid,
    /// Whether every call of this principal is refused.
    pub suspended: bool,
    /// Tokens issued (`iat`) at or before this Unix second are revoked.
    pub revoked_until: Option<i64>,
    /// Unix second for which a person asked to clear the principal's breakers and reports. Whenever it changes, a gateway
    /// clears them.
    pub breakers_cleared: Option<i64>,
    /// What the principal may call: one entry for each held scope and server.
    pub grants: Vec<Arc<Grant>>,
    pub limits: PrincipalLimits,
}

/// Limits of one principal over all servers; if one is absent, only the tenant's limit applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrincipalLimits {
    /// Calls per minute, refilled continuously.
    pub calls_per_minute: Option<u32>,
    /// Calls that may be made at once; defaults to a sixth of `calls_per_minute`, at least one.
    pub burst: Option<u32>,
    /// Calls in flight.
    pub max_concurrent_calls: Option<u32>,
}

/// The grants of one scope on one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Name of the `MCPScope`.
    pub scope: String,
    /// UID of the `MCPServer`.
    pub server_uid: Uid,
    /// Tools granted by name. Such an entry alone decides about its tool; `classes` does not apply to it.
    pub tools: Vec<GrantedTool>,
    /// Classes whose tools are granted, except for tools that `tools` names.
    pub classes: Vec<Class>,
}

/// A tool that a scope grants by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantedTool {
    /// Name of the tool.
    pub name: String,
    /// Arguments that may be sent; each value must satisfy its rule here *and* the catalogue's. If absent, the
    /// catalogue alone applies. An empty list grants the tool without arguments.
    pub arguments: Option<Arc<[Argument]>>,
}

/// A budget, or the tenant's spend limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Name for denials and labels; the tenant's spend limit is named `spendLimit`.
    pub name: String,
    /// UID of the `MCPBudget`, or of the `MCPTenant` for its spend limit.
    pub uid: Uid,
    /// The calls that the budget covers.
    pub selector: Selector,
    /// How often the budget resets.
    pub period: Period,
    /// Money per period; absent if money is not limited.
    pub amount: Option<Micros>,
    /// Calls per period; absent if calls are not limited.
    pub calls: Option<u64>,
    /// What happens to calls beyond the limits.
    pub mode: BudgetMode,
    /// What a person added to the limits for one period.
    pub top_up: Option<TopUp>,
}

impl Budget {
    /// Returns the limits on money and calls in the period that starts at `start`, in Unix seconds: those of every period,
    /// and what a person added to this one. A part without a limit stays without one.
    pub fn limits_in(&self, start: i64) -> (Option<Micros>, Option<u64>) {
        let top_up = self.top_up.filter(|top_up| top_up.start == start).unwrap_or_default();
        (
            self.amount.map(|amount| amount.saturating_add(top_up.amount)),
            self.calls.map(|calls| calls.saturating_add(top_up.calls)),
        )
    }
}

/// What a person added to the limits of a budget for one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TopUp {
    /// Start of the period, Unix seconds.
    pub start: i64,
    /// Money that is added.
    pub amount: Micros,
    /// Calls that are added.
    pub calls: u64,
}

/// What happens to calls that a budget has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum BudgetMode {
    /// They are refused.
    #[default]
    Enforce,
    /// They are counted like all others, and never refused.
    Monitor,
}

/// Selects the calls that a budget covers: those that match every present field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// UIDs of principals.
    pub principals: Option<Vec<Uid>>,
    /// UIDs of servers.
    pub servers: Option<Vec<Uid>>,
    /// Classes of tools.
    pub classes: Option<Vec<Class>>,
}

/// How often a budget resets, aligned to UTC; weeks start on Monday (ISO 8601).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Period {
    /// At every full hour.
    Hour,
    /// At every midnight.
    Day,
    /// Every Monday at midnight.
    Week,
    /// On the first of every month at midnight.
    Month,
}
