//! Tokens of managed principals: a key per tenant, and JWTs signed with it.

mod claims;
mod keys;
mod store;

pub use claims::Claims;
pub(crate) use claims::{McpFleetClaims, TokenError, sign, verify};
pub use keys::TenantKeys;
pub use store::secret_name;
pub(crate) use store::{KeyStore, KeyStoreError};
