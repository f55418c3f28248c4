//! Lookups: from a principal to its servers, and from a server to its tools.

use foldhash::HashSet;

use super::{Policy, PrincipalEntry, ServerEntry, ToolAccess};
use crate::built_in::BuiltIn;
use crate::model;
use crate::reason::Reason;

/// A principal of the policy.
#[derive(Clone, Copy, Debug)]
pub struct PrincipalRef<'p> {
    compiled: &'p Policy,
    index: usize,
    principal: &'p model::Principal,
    entry: &'p PrincipalEntry,
}

impl<'p> PrincipalRef<'p> {
    /// Builds the reference from an index of the same policy's tables.
    #[expect(clippy::indexing_slicing, reason = "built together with the table that the index comes from")]
    pub(super) fn new(compiled: &'p Policy, index: usize) -> Self {
        Self {
            compiled,
            index,
            principal: &compiled.model.principals[index],
            entry: &compiled.principal_entries[index],
        }
    }

    /// Returns the index of the principal in this generation of the policy.
    pub const fn index(self) -> usize {
        self.index
    }

    /// Returns the principal as published.
    pub const fn model(self) -> &'p model::Principal {
        self.principal
    }

    /// Returns `<namespace>/<name>`, as used in audit lines and labels.
    pub fn label(self) -> &'p str {
        &self.entry.label
    }

    /// Returns the tools that the principal may call on this server. If there are none, the error is
    /// [`Reason::ServerUnknown`], as for a server that does not exist.
    pub fn server(self, server: &str) -> Result<ServerAccess<'p>, Reason> {
        let server = *self.compiled.servers.get(server).ok_or(Reason::ServerUnknown)?;
        let entries = &self.entry.servers;
        let index = entries.binary_search_by_key(&server, |entry| entry.server).map_err(|_| Reason::ServerUnknown)?;
        let entry = entries.get(index).ok_or(Reason::ServerUnknown)?;
        let server = self.compiled.model.servers.get(server).ok_or(Reason::ServerUnknown)?;
        Ok(ServerAccess { compiled: self.compiled, entry, server })
    }

    /// Returns the UIDs of the budgets that cover a call which the principal may make.
    pub fn budgets(self) -> HashSet<&'p str> {
        let servers = self.entry.servers.iter().filter_map(|entry| {
            let server = self.compiled.model.servers.get(entry.server)?;
            Some(ServerAccess { compiled: self.compiled, entry, server })
        });
        servers.flat_map(ServerAccess::tools).flat_map(ToolAccess::budgets).map(|budget| &*budget.uid).collect()
    }

    /// Returns the tool, if at least one grant admits a call of it.
    pub fn authorise(self, server: &str, tool: &str) -> Result<ToolAccess<'p>, Reason> {
        self.server(server)?.tool(tool)
    }
}

/// The tools that one principal may call on one server.
#[derive(Clone, Copy, Debug)]
pub struct ServerAccess<'p> {
    compiled: &'p Policy,
    entry: &'p ServerEntry,
    server: &'p model::Server,
}

impl<'p> ServerAccess<'p> {
    /// Returns the server.
    pub const fn server(self) -> &'p model::Server {
        self.server
    }

    /// Returns the index of the server in this generation of the policy.
    pub const fn server_index(self) -> usize {
        self.entry.server
    }

    /// Returns the tools in the order of the catalogue.
    pub fn tools(self) -> impl Iterator<Item = ToolAccess<'p>> {
        (0..self.server.tools.len()).filter_map(move |index| self.access(index)).filter(|access| access.is_granted())
    }

    /// Returns the tool that callers know by this name. The error is [`Reason::ToolUnknown`] if the catalogue does not declare it and
    /// [`Reason::ToolNotGranted`] if no grant admits any call of it; callers get the same answer in both cases.
    pub fn tool(self, name: &str) -> Result<ToolAccess<'p>, Reason> {
        let tools = self.compiled.tools.get(self.entry.server).ok_or(Reason::ToolUnknown)?;
        let access = tools.get(name).and_then(|index| self.access(*index)).ok_or(Reason::ToolUnknown)?;
        if access.is_granted() { Ok(access) } else { Err(Reason::ToolNotGranted) }
    }

    /// Returns the tool of this name on the server, if a grant admits a call of it.
    pub fn tool_of_server(self, name: &str) -> Option<ToolAccess<'p>> {
        let index = self.server.tools.iter().position(|tool| tool.name == name)?;
        self.access(index).filter(|access| access.is_granted())
    }

    fn access(self, index: usize) -> Option<ToolAccess<'p>> {
        let Self { compiled, entry: server_entry, server } = self;
        let (tool, declared) = (server.tools.get(index)?, compiled.catalogues.get(server_entry.server)?.get(index)?);
        // The operator refuses such tools; a policy with one must not hide a built-in tool either.
        if [&tool.name, tool.wire_name()].into_iter().any(|name| BuiltIn::from_name(name).is_some()) {
            return None;
        }
        Some(ToolAccess { compiled, server, tool, index, declared, server_entry })
    }
}
