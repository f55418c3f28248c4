//! Tokens of managed principals: a key per tenant, and JWTs signed with it.

mod claims;
mod keys;
mod store;

pub use claims::{Claims, McpFleetClaims, TokenError, sign, verify};
pub use keys::{KeyError, TenantKeys};
pub use store::{KeyStore, KeyStoreError, secret_name};
