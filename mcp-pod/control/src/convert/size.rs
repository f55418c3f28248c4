//! The size of a policy in the expanded form, without building its messages.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_fleet_policy::model::{Grant, TenantPolicy};
use prost::Message as _;

use super::to_wire::Writer;
use crate::form::Form;

/// Returns how many bytes the grants and arguments of a policy have in the expanded form, without the length of each. The
/// whole policy is larger.
pub(crate) fn expanded_size(policy: &TenantPolicy) -> usize {
    let mut grants: HashMap<*const Grant, usize> = HashMap::new();
    let mut lists: HashMap<*const [mcp_fleet_policy::model::Argument], usize> = HashMap::new();
    let mut writer = Writer::new(Form::Expanded);
    let held = policy
        .principals
        .iter()
        .flat_map(|principal| &principal.grants)
        .map(|grant| *grants.entry(Arc::as_ptr(grant)).or_insert_with(|| writer.grant(grant).encoded_len()));
    let held: usize = held.fold(0, usize::saturating_add);
    let declared = policy.servers.iter().flat_map(|server| &server.tools).map(|tool| {
        let size = || super::to_wire::arguments(&tool.arguments).iter().map(prost::Message::encoded_len).sum();
        *lists.entry(Arc::as_ptr(&tool.arguments)).or_insert_with(size)
    });
    declared.fold(held, usize::saturating_add)
}
