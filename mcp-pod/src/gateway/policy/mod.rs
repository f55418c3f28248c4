//! The policy that the gateway enforces: one generation of it, prepared for calls.
//!
//! Start with [`active_policy`]. [`tool_grant`] is what all calls of one tool by one principal share, [`tool_lists`] the
//! rendered answers to `tools/list`. [`freshness`] is how recently the leader proved that the policy is current.

mod active_policy;
mod freshness;
mod tool_grant;
mod tool_lists;

pub(crate) use active_policy::ActivePolicy;
pub use active_policy::InstallError;
pub(crate) use freshness::Freshness;
pub(crate) use tool_grant::ToolGrant;
