//! Decides who may call what: a tenant's policy with its lookup tables, built once per generation.
//!
//! A call is allowed if a single grant (one entry of one held scope) and the catalogue both admit all of its arguments.
//! Two grants are never combined argument by argument. Anything without an entry in these tables does not exist for
//! the caller.

mod access;
mod budgets;
mod compile;
mod grants;
mod server_access;

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use crate::class::Class;
use crate::model::TenantPolicy;
use crate::reason::Reason;
use crate::rules::{Arguments, RuleError};
use budgets::BudgetsByClass;
use grants::CompiledGrant;

pub use access::{AdmittedCall, ToolAccess};
pub use server_access::{PrincipalRef, ServerAccess};

/// Why a policy cannot be enforced; the previous policy stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Two objects of one kind have the same name or UID.
    #[error("the {kind} {name:?} occurs twice")]
    Duplicate {
        /// `server`, `tool`, `name of a tool for callers` or `principal`.
        kind: &'static str,
        /// Name or UID that occurs twice.
        name: String,
    },
    /// The argument rules of a tool in the catalogue cannot be enforced.
    #[error("failed to compile the arguments of tool {tool:?} of server {server:?}")]
    Catalogue {
        /// Name of the server.
        server: String,
        /// Name of the tool.
        tool: String,
        /// The rule that failed to compile, and why.
        source: RuleError,
    },
    /// The argument rules of a tool in a scope cannot be enforced.
    #[error("failed to compile the arguments of tool {tool:?} of scope {scope:?}")]
    Scope {
        /// Name of the scope.
        scope: String,
        /// Name of the tool.
        tool: String,
        /// The rule that failed to compile, and why.
        source: RuleError,
    },
}

/// The compiled policy of one tenant: the model and the tables to look things up in it.
///
/// Memory grows with the number of objects: what principals have in common is in the tables once.
#[derive(Debug)]
pub struct Policy {
    model: TenantPolicy,
    /// Indices into `model.servers`, by name.
    servers: HashMap<String, usize>,
    /// For each server, indices into its tools by the name that callers use.
    tools: Vec<HashMap<String, usize>>,
    /// For each server, the argument rules of its tools.
    catalogues: Vec<Vec<Arc<Arguments>>>,
    /// The distinct grants that admit a call.
    grants: Vec<CompiledGrant>,
    /// Indices into `model.principals` and `principal_entries`, by UID.
    principals: HashMap<String, usize>,
    principal_entries: Vec<PrincipalEntry>,
}

/// What one principal may call.
#[derive(Debug)]
struct PrincipalEntry {
    /// `<namespace>/<name>`.
    label: String,
    /// One entry for each server with a tool that the principal may call, sorted by the server's index.
    servers: Box<[ServerEntry]>,
}

/// What one principal may call on one server.
#[derive(Debug)]
struct ServerEntry {
    /// Index into `model.servers`.
    server: usize,
    /// Indices of the principal's grants on the server; a call needs one that admits all of its arguments.
    grants: Box<[u32]>,
    /// The budgets that cover the principal's calls on this server.
    budgets: Arc<BudgetsByClass>,
}

impl Policy {
    /// Compiles a policy into its lookup tables.
    pub fn new(policy: TenantPolicy) -> Result<Self, CompileError> {
        compile::compile(policy)
    }

    /// Returns the policy as published.
    pub const fn model(&self) -> &TenantPolicy {
        &self.model
    }

    /// Returns the principal with this UID.
    pub fn principal(&self, uid: &str) -> Option<PrincipalRef<'_>> {
        self.principals.get(uid).map(|index| PrincipalRef::new(self, *index))
    }

    /// Checks that a proof of freshness of this age still allows calls of this class; listing tools counts as
    /// [`Class::Read`].
    pub fn check_fresh(&self, age: Duration, class: Class) -> Result<(), Reason> {
        if age > self.stale_after(class) { Err(Reason::PolicyStale) } else { Ok(()) }
    }

    /// Returns the maximum age of the proof of freshness for calls of this class.
    pub fn stale_after(&self, class: Class) -> Duration {
        if class == Class::Read { self.model.stale_after.read } else { self.model.stale_after.write }
    }
}

#[cfg(test)]
mod tests;
