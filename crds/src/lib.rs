//! The custom resources of MCP Fleet: group `mcp-fleet.dev`, version `v1alpha1`, one file a kind.
//!
//! The YAML in `crds/yaml` comes from [`all`], written by `cargo xtask crds`. Rule types are turned into the policy
//! model by the code in [`argument`], so that what an object says is checked by what enforces it.

pub mod admission;
pub mod argument;

pub mod budget;
pub mod condition;
pub mod ledger;
pub mod names;
pub mod principal;
pub mod reference;

mod schema;
pub mod scope;
pub mod server;
pub mod tenant;
mod union;

pub use budget::{MCPBudget, MCPBudgetSpec, MCPBudgetStatus};
pub use ledger::{MCPLedger, MCPLedgerSpec};
pub use principal::{MCPPrincipal, MCPPrincipalSpec, MCPPrincipalStatus};
pub use schema::all;
pub use scope::{MCPScope, MCPScopeSpec, MCPScopeStatus};
pub use server::{MCPServer, MCPServerSpec, MCPServerStatus};
pub use tenant::{MCPTenant, MCPTenantSpec, MCPTenantStatus};
