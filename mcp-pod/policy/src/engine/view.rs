//! The way from a principal over a server to a tool.

use super::{Compiled, Granted, Held, Holder, ToolAccess};
use crate::model;
use crate::reason::Reason;

/// A principal of the policy.
#[derive(Clone, Copy, Debug)]
pub struct PrincipalRef<'p> {
    compiled: &'p Compiled,
    index: usize,
    principal: &'p model::Principal,
    holder: &'p Holder,
}

impl<'p> PrincipalRef<'p> {
    /// The index comes from the tables of the same policy.
    #[expect(clippy::indexing_slicing, reason = "built together with the table that the index comes from")]
    pub(super) fn new(compiled: &'p Compiled, index: usize) -> Self {
        Self { compiled, index, principal: &compiled.policy.principals[index], holder: &compiled.holders[index] }
    }

    /// Its place among the principals of this generation.
    pub const fn index(self) -> usize {
        self.index
    }

    /// It as published.
    pub const fn policy(self) -> &'p model::Principal {
        self.principal
    }

    /// `<namespace>/<name>`, as it stands in audit lines and labels.
    pub fn label(self) -> &'p str {
        &self.holder.label
    }

    /// What it may call on that server; [`Reason::ServerUnknown`] also if that is nothing.
    pub fn view(self, server: &str) -> Result<View<'p>, Reason> {
        let server = *self.compiled.servers.get(server).ok_or(Reason::ServerUnknown)?;
        let place =
            self.holder.views.binary_search_by_key(&server, |held| held.server).map_err(|_| Reason::ServerUnknown)?;
        let held = self.holder.views.get(place).ok_or(Reason::ServerUnknown)?;
        let server = self.compiled.policy.servers.get(server).ok_or(Reason::ServerUnknown)?;
        Ok(View { compiled: self.compiled, held, server })
    }

    /// The tool, if it may be called at all.
    pub fn authorise(self, server: &str, tool: &str) -> Result<ToolAccess<'p>, Reason> {
        self.view(server)?.tool(tool)
    }
}

/// What one principal may call on one server.
#[derive(Clone, Copy, Debug)]
pub struct View<'p> {
    compiled: &'p Compiled,
    held: &'p Held,
    server: &'p model::Server,
}

impl<'p> View<'p> {
    /// The server.
    pub const fn server(self) -> &'p model::Server {
        self.server
    }

    /// The server's place among those of this generation.
    pub const fn server_index(self) -> usize {
        self.held.server
    }

    /// The tools, in the order of the catalogue.
    pub fn tools(self) -> impl Iterator<Item = ToolAccess<'p>> {
        self.held.granted.iter().filter_map(move |granted| self.access(granted))
    }

    /// The tool of that name: [`Reason::ToolUnknown`] if the catalogue has none, [`Reason::ToolNotGranted`] if no
    /// grant admits any call of it. Callers hear the same in both cases.
    pub fn tool(self, name: &str) -> Result<ToolAccess<'p>, Reason> {
        let tools = self.compiled.tools.get(self.held.server).ok_or(Reason::ToolUnknown)?;
        let index = tools.get(name).ok_or(Reason::ToolUnknown)?;
        let granted = &self.held.granted;
        let place = granted.binary_search_by_key(index, |granted| granted.tool).map_err(|_| Reason::ToolNotGranted)?;
        granted.get(place).and_then(|granted| self.access(granted)).ok_or(Reason::ToolNotGranted)
    }

    fn access(self, granted: &'p Granted) -> Option<ToolAccess<'p>> {
        let tool = self.server.tools.get(granted.tool)?;
        Some(ToolAccess { compiled: self.compiled, server: self.server, tool, held: self.held, granted })
    }
}
