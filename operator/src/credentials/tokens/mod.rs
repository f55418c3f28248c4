//! Tokens of managed principals: each tenant has a signing key, and `sign` signs JWTs with it.

mod claims;
mod keys;
mod store;

pub use claims::Claims;
pub(crate) use claims::{McpFleetClaims, TokenError, sign, verify};
pub use keys::{KeyError, TenantKeys};
pub use store::secret_name;
pub(crate) use store::{KeyStore, KeyStoreError};
