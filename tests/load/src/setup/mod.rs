//! The environment of a gateway, as in a cluster: certificates, token, policy and operator. Created for each run.

mod operator;
mod pki;
mod policy;
mod token;

pub(crate) use operator::Operator;
pub(crate) use pki::{Pki, client_tls};
pub(crate) use policy::{Addresses, tenant};
pub(crate) use token::SigningKey;

/// DNS name in every certificate of the run.
pub(crate) const NAME: &str = "gateway.bench-mcp.svc";
/// Audience of the tokens.
pub(crate) const AUDIENCE: &str = "https://gateway.bench-mcp.svc";
/// Issuer of the tokens.
pub(crate) const ISSUER: &str = "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/bench";
/// The only server.
pub(crate) const SERVER: &str = "echo";
/// The only tool.
pub(crate) const TOOL: &str = "echo";
/// UID of the tenant.
pub(crate) const TENANT_UID: &str = "11111111-0000-4000-8000-000000000001";
/// UID of the server.
pub(crate) const SERVER_UID: &str = "11111111-0000-4000-8000-000000000002";
/// UID of the principal.
pub(crate) const PRINCIPAL_UID: &str = "11111111-0000-4000-8000-000000000003";
/// UID of the budget.
pub(crate) const BUDGET_UID: &str = "11111111-0000-4000-8000-000000000004";
/// Price of a call, in millionths.
pub(crate) const PRICE: u64 = 3;

/// Returns the URI SAN of the gateway.
pub(crate) fn gateway_identity() -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{TENANT_UID}/gateway")
}

/// Returns the URI SAN of the shim.
pub(crate) fn server_identity() -> String {
    format!("spiffe://mcp-fleet.dev/tenant/{TENANT_UID}/server/{SERVER_UID}")
}
