//! The custom resources of MCP Fleet: group `mcp-fleet.dev`, version `v1alpha1`, one module per kind.
//!
//! Doc comments on API types and fields become the descriptions in the CRDs, which `kubectl explain` prints. `cargo
//! xtask crds` writes the YAML in `crds/yaml` and in the chart from [`all`]. [`argument`] converts argument rules to
//! the policy engine's model, so the code that enforces a rule also validates it.
//!
//! The types read every object that the schemas admit (`tests/readable`): the operator decodes all objects of a kind from
//! one watch, and must not lose sight of the others because of one.

pub mod admission;
pub mod argument;
pub mod budget;
pub mod condition;
mod integer;
pub mod ledger;
pub mod names;
pub mod pod;
pub mod principal;
pub mod quantity;
pub mod reference;
mod schema;
pub mod scope;
pub mod server;
pub mod tenant;
mod time;
pub mod top_up;
mod union;

pub use budget::{MCPBudget, MCPBudgetSpec, MCPBudgetStatus};
pub use ledger::{MCPLedger, MCPLedgerSpec};
pub use principal::{MCPPrincipal, MCPPrincipalSpec, MCPPrincipalStatus};
pub use schema::all;
pub use scope::{MCPScope, MCPScopeSpec, MCPScopeStatus};
pub use server::{MCPServer, MCPServerSpec, MCPServerStatus};
pub use tenant::{MCPTenant, MCPTenantSpec, MCPTenantStatus};
