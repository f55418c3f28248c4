//! Tokens of managed principals: each tenant has a signing key, [`sign`] signs JWTs with it, and [`plan`](plan::plan) decides
//! when.

mod claims;
mod entries;
mod keys;
pub mod plan;

pub use claims::{Claims, McpFleetClaims, TokenError, sign, verify};
pub use entries::entries;
pub use keys::{KeyError, TenantKeys};
