//! Compiles a policy into its lookup tables.

use std::sync::Arc;

use foldhash::HashMap;

use super::{CompileError, CompiledGrant, Policy, PrincipalEntry, ServerEntry, ToolEntry};
use crate::class::Class;
use crate::model::{Budget, Grant, Principal, Server, TenantPolicy, Tool};
use crate::rules::Arguments;
use crate::schema;

pub(super) fn compile(policy: TenantPolicy) -> Result<Policy, CompileError> {
    let servers = index("server", policy.servers.iter().map(|server| server.name.as_str()))?;
    let uids = index("server", policy.servers.iter().map(|server| server.uid.as_str()))?;
    let principals = index("principal", policy.principals.iter().map(|principal| principal.uid.as_str()))?;
    let tools = policy
        .servers
        .iter()
        .map(|server| index("tool", server.tools.iter().map(|tool| tool.name.as_str())))
        .collect::<Result<_, _>>()?;
    let catalogues = policy.servers.iter().map(catalogue).collect::<Result<Vec<_>, _>>()?;

    let mut compiler =
        Compiler { policy: &policy, catalogues: &catalogues, grants: HashMap::default(), tools: HashMap::default() };
    let principal_entries =
        policy.principals.iter().map(|principal| compiler.principal(principal, &uids)).collect::<Result<_, _>>()?;
    Ok(Policy { model: policy, servers, tools, principals, principal_entries })
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

/// Compiles the argument rules of all tools of a server.
fn catalogue(server: &Server) -> Result<Vec<Arc<Arguments>>, CompileError> {
    let compile = |tool: &Tool| {
        Arguments::new(&tool.arguments).map(Arc::new).map_err(|source| CompileError::Catalogue {
            server: server.name.clone(),
            tool: tool.name.clone(),
            source,
        })
    };
    server.tools.iter().map(compile).collect()
}

/// For each tool of a server, in the order of the catalogue, the grants of it by one scope.
type ScopeGrants = Vec<Vec<CompiledGrant>>;
/// Policy values with the input that each was compiled from.
type Memo<K, V> = Vec<(K, Arc<V>)>;

/// Compiles principals. Equal parts are compiled once and shared, because most principals hold the same few scopes.
struct Compiler<'p> {
    policy: &'p TenantPolicy,
    catalogues: &'p [Vec<Arc<Arguments>>],
    /// By scope and server.
    grants: HashMap<(&'p str, &'p str), Memo<&'p Grant, ScopeGrants>>,
    /// By server.
    tools: HashMap<usize, Memo<Vec<&'p Grant>, [ToolEntry]>>,
}

impl<'p> Compiler<'p> {
    fn principal(
        &mut self,
        principal: &'p Principal,
        servers: &HashMap<String, usize>,
    ) -> Result<PrincipalEntry, CompileError> {
        let mut grants: Vec<(usize, Vec<&'p Grant>)> = Vec::new();
        for grant in &principal.grants {
            let Some(server) = servers.get(&grant.server_uid) else { continue };
            match grants.iter_mut().find(|(known, _)| known == server) {
                Some((_, grants)) => grants.push(grant),
                None => grants.push((*server, vec![grant])),
            }
        }
        grants.sort_by_key(|(server, _)| *server);
        let mut servers = Vec::with_capacity(grants.len());
        for (server, grants) in grants {
            let tools = self.tools(server, grants)?;
            if !tools.is_empty() {
                servers.push(ServerEntry { server, tools, budgets: budgets(self.policy, principal, server) });
            }
        }
        Ok(PrincipalEntry { label: format!("{}/{}", principal.namespace, principal.name), servers })
    }

    /// Compiles the tools of a server that these grants admit.
    fn tools(&mut self, server: usize, grants: Vec<&'p Grant>) -> Result<Arc<[ToolEntry]>, CompileError> {
        let memo = self.tools.entry(server).or_default();
        if let Some((_, tools)) = memo.iter().find(|(input, _)| *input == grants) {
            return Ok(tools.clone());
        }
        let scopes = grants.iter().map(|grant| self.scope(server, grant)).collect::<Result<Vec<_>, _>>()?;
        let catalogue = self.catalogues.get(server).map(Vec::as_slice).unwrap_or_default();
        let tools: Arc<[ToolEntry]> = catalogue
            .iter()
            .enumerate()
            .filter_map(|(tool, declared)| {
                let grants: Vec<CompiledGrant> =
                    scopes.iter().filter_map(|scope| scope.get(tool)).flatten().cloned().collect();
                let all: Vec<&Arc<Arguments>> = grants.iter().map(|grant| &grant.arguments).collect();
                // A grant of the whole tool admits everything that the other grants admit.
                let schema = if all.iter().any(|arguments| Arc::ptr_eq(arguments, declared)) {
                    schema::of(&[declared])
                } else {
                    schema::of(&all)
                };
                (!grants.is_empty()).then_some(ToolEntry { tool, grants, schema: schema.into() })
            })
            .collect();
        self.tools.entry(server).or_default().push((grants, tools.clone()));
        Ok(tools)
    }

    /// Compiles what one scope grants on one server.
    fn scope(&mut self, server: usize, grant: &'p Grant) -> Result<Arc<ScopeGrants>, CompileError> {
        let memo = self.grants.entry((&grant.scope, &grant.server_uid)).or_default();
        if let Some((_, grants)) = memo.iter().find(|(input, _)| *input == grant) {
            return Ok(grants.clone());
        }
        let tools = self.policy.servers.get(server).map(|server| server.tools.as_slice()).unwrap_or_default();
        let catalogue = self.catalogues.get(server).map(Vec::as_slice).unwrap_or_default();
        let grants = tools
            .iter()
            .zip(catalogue)
            .map(|(tool, declared)| tool_grants(grant, tool, declared))
            .collect::<Result<Vec<_>, _>>()?;
        let grants = Arc::new(grants);
        memo.push((grant, grants.clone()));
        Ok(grants)
    }
}

/// Returns the grants of a tool by a scope: the entries that name the tool, or, if none does, the whole tool if its
/// class is granted.
///
/// An entry that can admit no call (it omits or contradicts an argument that the catalogue requires) grants nothing.
fn tool_grants(grant: &Grant, tool: &Tool, declared: &Arc<Arguments>) -> Result<Vec<CompiledGrant>, CompileError> {
    let Grant { scope, server_uid: _, tools, classes } = grant;
    let tool_grant = |arguments| CompiledGrant { scope: scope.clone(), arguments };
    let mut named = tools.iter().filter(|named| named.name == tool.name).peekable();
    if named.peek().is_none() {
        let granted = classes.contains(&tool.class);
        return Ok(granted.then(|| tool_grant(declared.clone())).into_iter().collect());
    }
    let mut grants = Vec::new();
    for entry in named {
        let Some(arguments) = &entry.arguments else {
            grants.push(tool_grant(declared.clone()));
            continue;
        };
        let narrowed = Arguments::new(arguments).map_err(|source| CompileError::Scope {
            scope: scope.clone(),
            tool: tool.name.clone(),
            source,
        })?;
        grants.extend(narrowed.intersect(declared).map(Arc::new).map(tool_grant));
    }
    Ok(grants)
}

/// Returns, for each class, the indices of the budgets that cover calls of this principal on this server.
fn budgets(policy: &TenantPolicy, principal: &Principal, server: usize) -> [Box<[usize]>; 3] {
    let uid = policy.servers.get(server).map(|server| server.uid.as_str());
    Class::ALL.map(|class| {
        let covers = |budget: &Budget| {
            let selector = &budget.selector;
            selector.principals.as_ref().is_none_or(|uids| uids.contains(&principal.uid))
                && selector.servers.as_ref().is_none_or(|uids| uids.iter().any(|known| Some(known.as_str()) == uid))
                && selector.classes.as_ref().is_none_or(|classes| classes.contains(&class))
        };
        policy.budgets.iter().enumerate().filter(|(_, budget)| covers(budget)).map(|(index, _)| index).collect()
    })
}
