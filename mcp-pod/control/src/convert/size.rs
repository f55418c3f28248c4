//! Sizes of the parts of a policy. Those of the shared form are upper bounds that depend on the part alone, and leave room
//! for what restricts it later: a suspension, a revocation, limits.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_fleet_policy::model::{Argument, DefinitionDigest, Grant, Principal, Server, Shown, TenantPolicy};
use prost::Message as _;

use super::to_wire::Writer;
use crate::form::Form;
use crate::wire;

/// Tag and length of a message or text, or a position in a table.
const FIELD: usize = 5;

/// Returns how many bytes the grants and arguments of a policy have in the expanded form, without the length of each. The
/// whole policy is larger.
pub(crate) fn expanded_size(policy: &TenantPolicy) -> usize {
    let mut grants: HashMap<*const Grant, usize> = HashMap::new();
    let mut lists: HashMap<*const [Argument], usize> = HashMap::new();
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

/// Returns at most how many bytes a list of arguments takes in its table.
pub fn list_size(list: &[Argument]) -> usize {
    wire::ArgumentList { items: super::to_wire::arguments(list) }.encoded_len() + FIELD
}

/// Returns at most how many bytes a server takes in the shared form, without the arguments of its tools.
pub fn server_size(server: &Server) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + FIELD);
    let texts = |shown: &Shown| text(&shown.title) + text(&shown.description);
    let tools = server.tools.iter().map(|tool| {
        let digest = tool.definition.map_or(0, |DefinitionDigest(digest)| digest.len() + FIELD);
        tool.name.len() + 6 * FIELD + digest + text(&tool.alias) + tool.shown.as_deref().map_or(0, texts)
    });
    // The address of its shim comes later, and has at most 48 bytes. Its limits have at most 40.
    server.name.len() + server.uid.len() + server.identity.len() + 48 + 40 + 6 * FIELD + tools.sum::<usize>()
}

/// Returns at most how many bytes a grant takes in its table, without the arguments of its tools.
pub fn grant_size(grant: &Grant) -> usize {
    let tools = grant.tools.iter().map(|tool| tool.name.len() + 3 * FIELD);
    grant.scope.len() + grant.server_uid.len() + grant.classes.len() + 4 * FIELD + tools.sum::<usize>()
}

/// Returns at most how many bytes a principal takes in the shared form.
pub fn principal_size(principal: &Principal) -> usize {
    let Principal { namespace, name, uid, grants, .. } = principal;
    // A position takes three bytes in a table of up to two million grants, and limits, suspension and revocation 33.
    namespace.len() + name.len() + uid.len() + 33 + 6 * FIELD + 3 * grants.len()
}
