//! Compiles a policy into its lookup tables.

use foldhash::HashMap;

use super::budgets::BudgetIndex;
use super::grants::GrantCompiler;
use super::{CompileError, Policy, PrincipalEntry, ServerEntry};
use crate::model::{Principal, TenantPolicy, Tool};

pub(super) fn compile(policy: TenantPolicy) -> Result<Policy, CompileError> {
    let servers = index("server", policy.servers.iter().map(|server| server.name.as_str()))?;
    let uids = index("server", policy.servers.iter().map(|server| server.uid.as_str()))?;
    let principals = index("principal", policy.principals.iter().map(|principal| principal.uid.as_str()))?;
    let names = policy
        .servers
        .iter()
        .map(|server| index("tool", server.tools.iter().map(|tool| tool.name.as_str())))
        .collect::<Result<Vec<_>, _>>()?;
    let tools = policy
        .servers
        .iter()
        .map(|server| index("name of a tool for callers", server.tools.iter().map(Tool::wire_name)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut grants = GrantCompiler::default();
    let catalogues = policy.servers.iter().map(|server| grants.catalogue(server)).collect::<Result<Vec<_>, _>>()?;
    let mut budgets = BudgetIndex::new(&policy.budgets);

    let mut entry = |principal: &Principal| {
        // Grants by server, in the order in which the principal holds them.
        let mut held: Vec<(usize, u32)> = Vec::with_capacity(principal.grants.len());
        for grant in &principal.grants {
            let Some(index) = uids.get(&grant.server_uid) else { continue };
            let (Some(server), Some(names), Some(catalogue)) =
                (policy.servers.get(*index), names.get(*index), catalogues.get(*index))
            else {
                continue;
            };
            if let Some(grant) = grants.grant(grant, server, names, catalogue)? {
                held.push((*index, grant));
            }
        }
        held.sort_by_key(|(server, _)| *server);
        let of_server = |held: &[(usize, u32)]| {
            let (server, _) = *held.first()?;
            let budgets = budgets.of(&principal.uid, &policy.servers.get(server)?.uid);
            Some(ServerEntry { server, grants: held.iter().map(|(_, grant)| *grant).collect(), budgets })
        };
        let servers = held.chunk_by(|(left, _), (right, _)| left == right).filter_map(of_server).collect();
        Ok(PrincipalEntry { label: format!("{}/{}", principal.namespace, principal.name), servers })
    };
    let principal_entries = policy.principals.iter().map(&mut entry).collect::<Result<_, _>>()?;
    let grants = grants.finish();
    Ok(Policy { servers, tools, catalogues, grants, principals, principal_entries, model: policy })
}

/// Maps each name to its index; fails if a name occurs twice.
fn index<'a>(kind: &'static str, names: impl Iterator<Item = &'a str>) -> Result<HashMap<String, usize>, CompileError> {
    let mut indices = HashMap::default();
    for (index, name) in names.enumerate() {
        if indices.insert(name.to_owned(), index).is_some() {
            return Err(CompileError::Duplicate { kind, name: name.to_owned() });
        }
    }
    Ok(indices)
}
