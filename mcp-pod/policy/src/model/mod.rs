//! The policy of one tenant as plain data: what the operator compiles and publishes, and the gateway enforces.
//!
//! Values here are already checked (`Rule` patterns compile, references resolve by UID); the gateway turns them into
//! its lookup tables once per generation. `mcp-fleet-control` converts to and from the wire and owns the digest.

mod rule;

use std::net::SocketAddr;
use std::time::Duration;

pub use rule::{Argument, Decimal, ItemRule, PathRule, Rule, Scalar, StringRule};

use crate::class::Class;
use crate::units::{Bytes, Currency, Micros};

/// An object's UID, as Kubernetes gives it.
pub type Uid = String;

/// Everything a gateway needs to decide about the calls of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// The tenant's name, for audit lines and labels.
    pub tenant: String,
    /// The tenant's UID: tokens of a deleted and re-created tenant of the same name are worth nothing.
    pub tenant_uid: Uid,
    /// Counts up by one with every publication; a gateway never goes down.
    pub generation: u64,
    /// Refuse every call.
    pub suspended: bool,
    /// `aud` of the tenant's tokens: the origin of its endpoint, no slash at the end.
    pub audience: String,
    /// `iss` of the tenant's tokens.
    pub issuer: String,
    /// Keys that sign the tenant's tokens now, or signed ones that have not expired.
    pub keys: Vec<VerificationKey>,
    /// The key that seals legacy session ids: 32 random bytes, one per tenant.
    pub session_key: Vec<u8>,
    /// Limits over all principals of the tenant.
    pub traffic: Traffic,
    /// How old the operator's last proof of freshness may be.
    pub stale_after: StaleAfter,
    /// The currency of all prices and budgets; absent where nothing has a price.
    pub currency: Option<Currency>,
    /// The servers, by name.
    pub servers: Vec<Server>,
    /// The principals.
    pub principals: Vec<Principal>,
    /// The budgets, the tenant's spend limit among them.
    pub budgets: Vec<Budget>,
}

/// A public key for ES256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKey {
    /// The `kid` of the tokens it verifies.
    pub kid: String,
    /// The P-256 point, uncompressed: 65 bytes that begin with 4 (SEC 1, 2.3.3).
    pub point: Vec<u8>,
}

/// Limits of the tenant as a whole; absent means no limit of this kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls in a minute.
    pub calls_per_minute: Option<u32>,
    /// Calls in flight.
    pub max_concurrent_calls: Option<u32>,
}

/// The age of the freshness proof past which calls are refused.
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
    /// The name: its path on the gateway is `/<name>/mcp`.
    pub name: String,
    /// The UID of its `MCPServer`.
    pub uid: Uid,
    /// Where its shim listens; absent while the workload has no address yet.
    pub upstream: Option<SocketAddr>,
    /// The URI SAN that the shim's certificate must carry, exactly.
    pub identity: String,
    /// The catalogue: a tool that is not here does not exist.
    pub tools: Vec<Tool>,
    /// Sizes, times and concurrency.
    pub limits: ServerLimits,
}

/// Limits of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// From the forwarding of a call to its result.
    pub timeout: Duration,
    /// The body of a request to the gateway.
    pub max_request: Bytes,
    /// A result, as the server wrote it.
    pub max_response: Bytes,
    /// Calls in flight, over all principals.
    pub max_concurrent_calls: u32,
}

/// A tool of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The name, as the server knows it.
    pub name: String,
    /// What it does to the world.
    pub class: Class,
    /// The arguments it takes; one that is not here is refused.
    pub arguments: Vec<Argument>,
    /// What a call costs.
    pub price: Micros,
}

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The namespace of its `MCPPrincipal`.
    pub namespace: String,
    /// The name of its `MCPPrincipal`.
    pub name: String,
    /// The UID of its `MCPPrincipal`: the key of all its state.
    pub uid: Uid,
    /// Refuse every call of this principal.
    pub suspended: bool,
    /// Tokens with `iat` at or before this Unix second are revoked.
    pub revoked_until: Option<i64>,
    /// What it may call, one entry for each held scope and server.
    pub grants: Vec<Grant>,
    /// Its own limits.
    pub limits: PrincipalLimits,
}

/// Limits of one principal over all its servers; absent means the tenant's alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrincipalLimits {
    /// Calls in a minute, refilled steadily.
    pub calls_per_minute: Option<u32>,
    /// Calls that may come at once; absent: a sixth of `calls_per_minute`, at least one.
    pub burst: Option<u32>,
    /// Calls in flight.
    pub max_concurrent_calls: Option<u32>,
}

/// What one scope grants on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The name of the `MCPScope`.
    pub scope: String,
    /// The UID of the `MCPServer`.
    pub server_uid: Uid,
    /// Named tools: each is governed by its entry here alone.
    pub tools: Vec<GrantedTool>,
    /// Classes that are granted among the tools that are not named.
    pub classes: Vec<Class>,
}

/// A tool that a scope names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedTool {
    /// The name.
    pub name: String,
    /// The arguments that may be sent, each within its rule here *and* the catalogue's; absent: as the catalogue
    /// says. An empty list grants the tool without arguments.
    pub arguments: Option<Vec<Argument>>,
}

/// A budget, or the tenant's ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The name, for refusals and labels; the tenant's ceiling is named `spendLimit`.
    pub name: String,
    /// The UID of its `MCPBudget`, or of the `MCPTenant` for its ceiling.
    pub uid: Uid,
    /// What it covers.
    pub selector: Selector,
    /// How often it starts anew.
    pub period: Period,
    /// Money in a period; absent: not limited by money.
    pub amount: Option<Micros>,
    /// Calls in a period; absent: not limited by calls.
    pub calls: Option<u64>,
}

/// Which calls a budget covers: those that match every part that is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// UIDs of principals.
    pub principals: Option<Vec<Uid>>,
    /// UIDs of servers.
    pub servers: Option<Vec<Uid>>,
    /// Classes.
    pub classes: Option<Vec<Class>>,
}

/// How often a budget starts anew, aligned to UTC; weeks start on Monday (ISO 8601).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Period {
    /// Every full hour.
    Hour,
    /// Every midnight.
    Day,
    /// Every Monday at midnight.
    Week,
    /// Every first of the month at midnight.
    Month,
}
