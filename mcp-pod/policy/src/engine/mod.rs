//! Who may call what: a tenant's policy with its lookup tables, built once per generation.
//!
//! A call is allowed if one single grant (one entry of one held scope) admits all of it, and the catalogue does too;
//! never a mixture of two grants, argument by argument. What is not found here does not exist for its caller.

mod access;
mod compile;
mod view;

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use crate::class::Class;
use crate::model::TenantPolicy;
use crate::reason::Reason;
use crate::rules::{Arguments, RuleError};

pub use access::{Admitted, ToolAccess};
pub use view::{PrincipalRef, View};

/// A policy that cannot be enforced: the one before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Two objects of one kind and one name or UID.
    #[error("the {kind} {name:?} is there twice")]
    Duplicate {
        /// `server`, `tool` or `principal`.
        kind: &'static str,
        /// Its name or UID.
        name: String,
    },
    /// A tool of the catalogue whose arguments cannot be enforced.
    #[error("failed to compile the arguments of tool {tool:?} of server {server:?}")]
    Catalogue {
        /// The server's name.
        server: String,
        /// The tool's name.
        tool: String,
        /// What is wrong with them.
        source: RuleError,
    },
    /// A tool of a scope whose arguments cannot be enforced.
    #[error("failed to compile the arguments of tool {tool:?} of scope {scope:?}")]
    Scope {
        /// The scope's name.
        scope: String,
        /// The tool's name.
        tool: String,
        /// What is wrong with them.
        source: RuleError,
    },
}

/// The policy of one tenant, ready to be enforced.
#[derive(Debug)]
pub struct Compiled {
    policy: TenantPolicy,
    /// Indices into `policy.servers`, by name.
    servers: HashMap<String, usize>,
    /// For each server, indices into its tools by name.
    tools: Vec<HashMap<String, usize>>,
    /// Indices into `policy.principals` and `holders`, by UID.
    principals: HashMap<String, usize>,
    holders: Vec<Holder>,
}

/// What a principal holds.
#[derive(Debug)]
struct Holder {
    /// `<namespace>/<name>`.
    label: String,
    /// One for each server of which it may call a tool, by the server's index.
    views: Vec<Held>,
}

/// What a principal may call on one server.
#[derive(Debug)]
struct Held {
    server: usize,
    /// Principals with equal grants share it.
    granted: Arc<[Granted]>,
    /// For each class, the indices of the budgets that cover its calls.
    budgets: [Box<[usize]>; 3],
}

/// A tool that may be called.
#[derive(Debug)]
struct Granted {
    /// Index into the server's tools; they are in the order of the catalogue.
    tool: usize,
    /// One of these has to admit a call, whole.
    alternatives: Vec<Alternative>,
    /// The JSON Schema of what they admit.
    schema: Box<[u8]>,
}

/// What one grant admits of one tool.
#[derive(Clone, Debug)]
struct Alternative {
    scope: String,
    arguments: Arc<Arguments>,
}

impl Compiled {
    /// Builds the tables.
    pub fn new(policy: TenantPolicy) -> Result<Self, CompileError> {
        compile::compile(policy)
    }

    /// The policy as it was published.
    pub const fn policy(&self) -> &TenantPolicy {
        &self.policy
    }

    /// The principal of that UID.
    pub fn principal(&self, uid: &str) -> Option<PrincipalRef<'_>> {
        self.principals.get(uid).map(|index| PrincipalRef::new(self, *index))
    }

    /// Whether a proof of freshness of that age still allows calls of this class; listing counts as
    /// [`Class::Read`].
    pub fn check_fresh(&self, age: Duration, class: Class) -> Result<(), Reason> {
        let most = if class == Class::Read { self.policy.stale_after.read } else { self.policy.stale_after.write };
        if age > most { Err(Reason::PolicyStale) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
