//! The policy that the gateway enforces: one generation of it, prepared for calls.
//!
//! [`active_policy`] is the whole; [`tool_grant`] holds what is the same for all calls of one tool by one principal,
//! [`tool_lists`] the rendered answers to `tools/list`. [`freshness`] knows when the policy was last proved current.

mod active_policy;
mod freshness;
mod tool_grant;
mod tool_lists;

pub use active_policy::{ActivePolicy, InstallError};
pub(crate) use freshness::Freshness;
pub(crate) use tool_grant::ToolGrant;
