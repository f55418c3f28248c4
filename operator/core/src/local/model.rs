//! What goes into the operator of a fleet on one machine, and what comes out of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mcp_fleet_crds::{MCPBudget, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use mcp_fleet_policy::model::Uid;

/// The objects of one tenant, and where its processes are.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The tenant.
    pub tenant: Arc<MCPTenant>,
    /// Its servers.
    pub servers: Vec<Arc<MCPServer>>,
    /// Its scopes.
    pub scopes: Vec<Arc<MCPScope>>,
    /// Its principals.
    pub principals: Vec<Arc<MCPPrincipal>>,
    /// Its budgets.
    pub budgets: Vec<Arc<MCPBudget>>,
    /// Addresses of the shims, by UID of the server.
    pub addresses: BTreeMap<Uid, Vec<SocketAddr>>,
    /// URL of the gateway, which is the audience of tokens too.
    pub url: String,
}

/// Whether an object is in force as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Kind of the object.
    pub kind: &'static str,
    /// Name of the object.
    pub object: String,
    /// Whether it is in force as it is written.
    pub is_in_force: bool,
    /// Reason of the condition that a cluster would show.
    pub reason: String,
    /// Message of that condition.
    pub message: String,
}

/// What came of the objects of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Generation of the policy in force.
    pub generation: u64,
    /// A verdict on each object.
    pub verdicts: Vec<Verdict>,
}

/// Certificate, key and authority of one process, PEM.
#[derive(Clone)]
pub struct Identity {
    /// `tls.crt`
    pub certificate: String,
    /// `tls.key`
    pub key: String,
    /// `ca.crt`
    pub authority: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a gateway needs to connect.
#[derive(Clone)]
pub struct Ticket {
    /// Identifies the process, as a pod's UID does in a cluster.
    pub uid: String,
    /// The token that it authenticates with.
    pub token: String,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("uid", &self.uid).finish_non_exhaustive()
    }
}
