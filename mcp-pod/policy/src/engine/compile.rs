//! From a policy to its tables.

use std::sync::Arc;

use foldhash::HashMap;

use super::{Alternative, CompileError, Compiled, Granted, Held, Holder};
use crate::class::Class;
use crate::model::{Budget, Grant, Principal, Server, TenantPolicy, Tool};
use crate::rules::Arguments;
use crate::schema;

pub(super) fn compile(policy: TenantPolicy) -> Result<Compiled, CompileError> {
    let servers = index("server", policy.servers.iter().map(|server| server.name.as_str()))?;
    let uids = index("server", policy.servers.iter().map(|server| server.uid.as_str()))?;
    let principals = index("principal", policy.principals.iter().map(|principal| principal.uid.as_str()))?;
    let tools = policy
        .servers
        .iter()
        .map(|server| index("tool", server.tools.iter().map(|tool| tool.name.as_str())))
        .collect::<Result<_, _>>()?;
    let catalogues = policy.servers.iter().map(catalogue).collect::<Result<Vec<_>, _>>()?;

    let mut shared =
        Shared { policy: &policy, catalogues: &catalogues, grants: HashMap::default(), views: HashMap::default() };
    let holders =
        policy.principals.iter().map(|principal| shared.holder(principal, &uids)).collect::<Result<_, _>>()?;
    Ok(Compiled { policy, servers, tools, principals, holders })
}

/// Places by name; a name that is there twice is an error.
fn index<'a>(kind: &'static str, names: impl Iterator<Item = &'a str>) -> Result<HashMap<String, usize>, CompileError> {
    let mut places = HashMap::default();
    for (place, name) in names.enumerate() {
        if places.insert(name.to_owned(), place).is_some() {
            return Err(CompileError::Duplicate { kind, name: name.to_owned() });
        }
    }
    Ok(places)
}

/// The compiled arguments of all tools of a server.
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

/// For each tool of the server, what one grant admits of it.
type Admits = Vec<Vec<Alternative>>;
/// What was compiled already, found by comparing what it was compiled from.
type Known<K, V> = Vec<(K, Arc<V>)>;

/// What many principals have in common is compiled once: they mostly hold the same few scopes.
struct Shared<'p> {
    policy: &'p TenantPolicy,
    catalogues: &'p [Vec<Arc<Arguments>>],
    /// By scope and server.
    grants: HashMap<(&'p str, &'p str), Known<&'p Grant, Admits>>,
    /// By server.
    views: HashMap<usize, Known<Vec<&'p Grant>, [Granted]>>,
}

impl<'p> Shared<'p> {
    fn holder(&mut self, principal: &'p Principal, servers: &HashMap<String, usize>) -> Result<Holder, CompileError> {
        let mut grants: Vec<(usize, Vec<&'p Grant>)> = Vec::new();
        for grant in &principal.grants {
            let Some(server) = servers.get(&grant.server_uid) else { continue };
            match grants.iter_mut().find(|(known, _)| known == server) {
                Some((_, held)) => held.push(grant),
                None => grants.push((*server, vec![grant])),
            }
        }
        grants.sort_by_key(|(server, _)| *server);
        let mut views = Vec::with_capacity(grants.len());
        for (server, grants) in grants {
            let granted = self.view(server, grants)?;
            if !granted.is_empty() {
                views.push(Held { server, granted, budgets: budgets(self.policy, principal, server) });
            }
        }
        Ok(Holder { label: format!("{}/{}", principal.namespace, principal.name), views })
    }

    fn view(&mut self, server: usize, grants: Vec<&'p Grant>) -> Result<Arc<[Granted]>, CompileError> {
        let known = self.views.entry(server).or_default();
        if let Some((_, view)) = known.iter().find(|(same, _)| *same == grants) {
            return Ok(view.clone());
        }
        let admits = grants.iter().map(|grant| self.grant(server, grant)).collect::<Result<Vec<_>, _>>()?;
        let catalogue = self.catalogues.get(server).map(Vec::as_slice).unwrap_or_default();
        let view: Arc<[Granted]> = catalogue
            .iter()
            .enumerate()
            .filter_map(|(tool, whole)| {
                let alternatives: Vec<Alternative> =
                    admits.iter().filter_map(|admits| admits.get(tool)).flatten().cloned().collect();
                let all: Vec<&Arc<Arguments>> = alternatives.iter().map(|one| &one.arguments).collect();
                // A grant of the whole tool covers what the others say.
                let schema = if all.iter().any(|arguments| Arc::ptr_eq(arguments, whole)) {
                    schema::of(&[whole])
                } else {
                    schema::of(&all)
                };
                (!alternatives.is_empty()).then_some(Granted { tool, alternatives, schema: schema.into() })
            })
            .collect();
        self.views.entry(server).or_default().push((grants, view.clone()));
        Ok(view)
    }

    fn grant(&mut self, server: usize, grant: &'p Grant) -> Result<Arc<Admits>, CompileError> {
        let known = self.grants.entry((&grant.scope, &grant.server_uid)).or_default();
        if let Some((_, admits)) = known.iter().find(|(same, _)| *same == grant) {
            return Ok(admits.clone());
        }
        let tools = self.policy.servers.get(server).map(|server| server.tools.as_slice()).unwrap_or_default();
        let catalogue = self.catalogues.get(server).map(Vec::as_slice).unwrap_or_default();
        let admits = tools
            .iter()
            .zip(catalogue)
            .map(|(tool, whole)| alternatives(grant, tool, whole))
            .collect::<Result<Vec<_>, _>>()?;
        let admits = Arc::new(admits);
        known.push((grant, admits.clone()));
        Ok(admits)
    }
}

/// What a grant admits of a tool: its named entry alone if it has one, else all of it if its class is granted.
///
/// An entry that can admit no call (it leaves out or contradicts what the catalogue requires) grants nothing.
fn alternatives(grant: &Grant, tool: &Tool, whole: &Arc<Arguments>) -> Result<Vec<Alternative>, CompileError> {
    let Grant { scope, server_uid: _, tools, classes } = grant;
    let alternative = |arguments| Alternative { scope: scope.clone(), arguments };
    let mut named = tools.iter().filter(|named| named.name == tool.name).peekable();
    if named.peek().is_none() {
        let granted = classes.contains(&tool.class);
        return Ok(granted.then(|| alternative(whole.clone())).into_iter().collect());
    }
    let mut found = Vec::new();
    for entry in named {
        let Some(arguments) = &entry.arguments else {
            found.push(alternative(whole.clone()));
            continue;
        };
        let narrowed = Arguments::new(arguments).map_err(|source| CompileError::Scope {
            scope: scope.clone(),
            tool: tool.name.clone(),
            source,
        })?;
        found.extend(narrowed.intersect(whole).map(Arc::new).map(alternative));
    }
    Ok(found)
}

/// For each class, the budgets that cover calls of this principal on that server.
fn budgets(policy: &TenantPolicy, principal: &Principal, server: usize) -> [Box<[usize]>; 3] {
    let uid = policy.servers.get(server).map(|server| server.uid.as_str());
    Class::ALL.map(|class| {
        let covers = |budget: &Budget| {
            let selector = &budget.selector;
            selector.principals.as_ref().is_none_or(|uids| uids.contains(&principal.uid))
                && selector.servers.as_ref().is_none_or(|uids| uids.iter().any(|known| Some(known.as_str()) == uid))
                && selector.classes.as_ref().is_none_or(|classes| classes.contains(&class))
        };
        policy.budgets.iter().enumerate().filter(|(_, budget)| covers(budget)).map(|(place, _)| place).collect()
    })
}
