//! Policies that fit into a snapshot and that gateways accept.

use mcp_fleet_control::EncodedPolicy;
use mcp_fleet_control::snapshot::{CompressedPolicy, SnapshotError};

use super::compile::{self, Compiled, Limit, Previous, TenantInputs};
use crate::error::BoxError;

/// How often a policy is compressed to find out how much of it fits.
const MAX_COMPRESSIONS: usize = 3;

/// Compiles a policy that fits into a snapshot. How well a policy can be compressed is known only afterwards.
pub fn fitting(inputs: &TenantInputs, previous: Option<&Previous>) -> Compiled {
    let mut limit = Limit::DEFAULT;
    for _ in 0..MAX_COMPRESSIONS {
        let compiled = compile::compile(inputs, previous, limit);
        let encoded = mcp_fleet_control::encode(&compiled.policy);
        match CompressedPolicy::new(&encoded) {
            Err(SnapshotError::TooLarge(compressed)) => limit = limit.scaled(encoded.bytes.len(), compressed),
            _ => return compiled,
        }
    }
    compile::compile(inputs, previous, Limit::INCOMPRESSIBLE)
}

/// Decodes and compiles the policy like a gateway, so that a policy that gateways would refuse is not published.
pub fn check_enforceable(encoded: &EncodedPolicy) -> Result<(), BoxError> {
    let decoded = mcp_fleet_control::decode(&encoded.bytes)?;
    mcp_fleet_policy::engine::Policy::new(decoded.policy)?;
    Ok(())
}
