//! Compiles grants: each distinct one once, however many principals hold it.

use std::sync::Arc;

use foldhash::HashMap;

use super::CompileError;
use crate::class::Class;
use crate::model::{Argument, Grant, Server};
use crate::rules::Arguments;

/// A grant, with the rules of the tools that it names already intersected with those of the catalogue.
#[derive(Debug)]
pub(super) struct CompiledGrant {
    /// The grant as published.
    grant: Arc<Grant>,
    /// The entries of the tools that the grant names, sorted by tool.
    named: Box<[NamedTool]>,
}

/// An entry of a grant for one tool.
#[derive(Debug)]
struct NamedTool {
    /// Index into the server's tools.
    tool: usize,
    /// `None` if the entry can admit no call, because it omits or contradicts an argument that the catalogue requires.
    /// It still keeps the classes of the grant from covering the tool.
    arguments: Option<Arc<Arguments>>,
}

impl CompiledGrant {
    /// Returns the name of the scope.
    pub(super) fn scope(&self) -> &str {
        &self.grant.scope
    }

    /// Returns the arguments that the grant admits for a tool: by the entries that name it or, if none does, those of the
    /// catalogue if its class is granted.
    pub(super) fn arguments<'p>(
        &'p self,
        tool: usize,
        class: Class,
        declared: &'p Arc<Arguments>,
    ) -> impl Iterator<Item = &'p Arc<Arguments>> + Clone {
        let start = self.named.partition_point(|named| named.tool < tool);
        let from_start = self.named.get(start..).unwrap_or_default();
        let named = from_start.get(..from_start.partition_point(|named| named.tool == tool)).unwrap_or_default();
        let by_class = (named.is_empty() && self.grant.classes.contains(&class)).then_some(declared);
        named.iter().filter_map(|named| named.arguments.as_ref()).chain(by_class)
    }
}

/// Identity of a list of arguments or of a grant that outlives the compilation.
type Address = usize;

fn address<T: ?Sized>(shared: &Arc<T>) -> Address {
    Arc::as_ptr(shared).cast::<()>().addr()
}

/// Compiles lists of arguments and grants. Equal ones share one allocation in a policy, and are compiled once.
#[derive(Default)]
pub(super) struct GrantCompiler {
    compiled: Vec<CompiledGrant>,
    /// Index into `compiled` by grant; `None` for a grant that admits no call.
    indices: HashMap<Address, Option<u32>>,
    lists: HashMap<Address, Arc<Arguments>>,
    /// By the list of the scope and that of the catalogue.
    intersections: HashMap<(Address, Address), Option<Arc<Arguments>>>,
}

impl GrantCompiler {
    /// Compiles the argument rules of all tools of a server.
    pub(super) fn catalogue(&mut self, server: &Server) -> Result<Vec<Arc<Arguments>>, CompileError> {
        let catalogue = server.tools.iter().map(|tool| {
            self.list(&tool.arguments).map_err(|source| CompileError::Catalogue {
                server: server.name.clone(),
                tool: tool.name.clone(),
                source,
            })
        });
        catalogue.collect()
    }

    /// Compiles a grant on a server. Returns its index, or `None` if it admits no call.
    pub(super) fn grant(
        &mut self,
        grant: &Arc<Grant>,
        server: &Server,
        tool_indices: &HashMap<String, usize>,
        catalogue: &[Arc<Arguments>],
    ) -> Result<Option<u32>, CompileError> {
        if let Some(index) = self.indices.get(&address(grant)) {
            return Ok(*index);
        }
        let mut named = Vec::with_capacity(grant.tools.len());
        for entry in &grant.tools {
            // Nothing can be granted of a tool that the catalogue does not declare.
            let Some((tool, declared)) =
                tool_indices.get(&entry.name).and_then(|tool| Some((*tool, catalogue.get(*tool)?)))
            else {
                continue;
            };
            let arguments = match &entry.arguments {
                None => Some(Arc::clone(declared)),
                Some(list) => self.intersection(list, declared).map_err(|source| CompileError::Scope {
                    scope: grant.scope.clone(),
                    tool: entry.name.clone(),
                    source,
                })?,
            };
            named.push(NamedTool { tool, arguments });
        }
        named.sort_by_key(|named| named.tool);
        let compiled = CompiledGrant { grant: Arc::clone(grant), named: named.into() };
        let admits_any = server
            .tools
            .iter()
            .zip(catalogue)
            .enumerate()
            .any(|(index, (tool, declared))| compiled.arguments(index, tool.class, declared).next().is_some());
        let index = if admits_any { u32::try_from(self.compiled.len()).ok() } else { None };
        if index.is_some() {
            self.compiled.push(compiled);
        }
        self.indices.insert(address(grant), index);
        Ok(index)
    }

    /// Returns the compiled grants by index.
    pub(super) fn finish(self) -> Vec<CompiledGrant> {
        self.compiled
    }

    fn list(&mut self, list: &Arc<[Argument]>) -> Result<Arc<Arguments>, crate::rules::RuleError> {
        if let Some(compiled) = self.lists.get(&address(list)) {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(Arguments::new(list)?);
        // All empty lists of a kind of `Arc` may have one address, and all of them compile to the same.
        self.lists.insert(address(list), Arc::clone(&compiled));
        Ok(compiled)
    }

    fn intersection(
        &mut self,
        list: &Arc<[Argument]>,
        declared: &Arc<Arguments>,
    ) -> Result<Option<Arc<Arguments>>, crate::rules::RuleError> {
        let key = (address(list), address(declared));
        if let Some(both) = self.intersections.get(&key) {
            return Ok(both.clone());
        }
        let both = self.list(list)?.intersect(declared).map(Arc::new);
        self.intersections.insert(key, both.clone());
        Ok(both)
    }
}
