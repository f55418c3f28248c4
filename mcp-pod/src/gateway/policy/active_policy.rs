//! One generation of the policy, ready for calls: everything that is worth computing once.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use mcp_fleet_policy::engine::{CompileError, Compiled, PrincipalRef, ToolAccess, View};
use mcp_fleet_policy::list;
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::RwLock;

use super::ToolGrant;
use super::tool_lists::ToolLists;
use crate::gateway::audit::ArgumentKey;
use crate::gateway::metrics::Metrics;
use crate::gateway::request::{SealError, SessionSealer, TokenVerifier};
use crate::gateway::upstream::{Dialer, Report, Upstream};
use crate::tls::TlsError;

/// Why a policy was not installed; the one before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A gateway never goes down a generation.
    #[error("failed to install generation {offered}: generation {current} is in force")]
    Older {
        /// What was offered.
        offered: u64,
        /// What is in force.
        current: u64,
    },
    /// A rule or a reference in it does not hold.
    #[error("failed to compile the policy: {0}")]
    Compile(#[from] CompileError),
    /// Its session key is of no use.
    #[error("failed to use the policy's session key")]
    SessionKey(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A server cannot be reached as the policy says.
    #[error("failed to prepare the way to a server: {0}")]
    Upstream(#[from] TlsError),
}

impl From<SealError> for InstallError {
    fn from(error: SealError) -> Self {
        Self::SessionKey(Box::new(error))
    }
}

/// The policy in force, ready to be looked up.
#[derive(Debug)]
pub struct ActivePolicy {
    /// The policy and its lookup tables.
    pub compiled: Arc<Compiled>,
    pub(crate) token_verifier: Arc<TokenVerifier>,
    pub(crate) session_sealer: SessionSealer,
    pub(crate) argument_key: ArgumentKey,
    /// By the index of the server.
    upstreams: Vec<Option<Arc<Upstream>>>,
    /// By principal and tool; filled as they are called.
    tool_grants: RwLock<HashMap<(usize, usize), Arc<ToolGrant>, foldhash::fast::RandomState>>,
    tool_lists: ToolLists,
}

impl ActivePolicy {
    /// Prepares a policy; what did not change since `before` is taken over, connections and verified tokens with it.
    pub(crate) fn new(policy: TenantPolicy, dialer: &Dialer, before: Option<&Self>) -> Result<Self, InstallError> {
        let token_verifier = TokenVerifier::for_policy(&policy, before.map(|before| &before.token_verifier));
        let session_sealer = SessionSealer::new(&policy.session_key)?;
        let argument_key = ArgumentKey::new(&policy.session_key);
        let upstreams = policy
            .servers
            .iter()
            .map(|server| {
                Upstream::for_server(server, dialer, before.and_then(|before| before.upstream_of(&server.uid)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            compiled: Arc::new(Compiled::new(policy)?),
            token_verifier,
            session_sealer,
            argument_key,
            upstreams,
            tool_grants: RwLock::default(),
            tool_lists: ToolLists::default(),
        })
    }

    /// The policy as it was published.
    pub fn tenant_policy(&self) -> &TenantPolicy {
        self.compiled.policy()
    }

    /// The UID of the principal at that place among those of this generation.
    pub(crate) fn principal_uid(&self, index: usize) -> Option<&str> {
        self.tenant_policy().principals.get(index).map(|principal| principal.uid.as_str())
    }

    /// The way to a server; absent while it has no address.
    pub(crate) fn upstream(&self, view: View<'_>) -> Option<&Arc<Upstream>> {
        self.upstreams.get(view.server_index())?.as_ref()
    }

    /// All ways to servers.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().flatten()
    }

    fn upstream_of(&self, uid: &str) -> Option<&Arc<Upstream>> {
        let index = self.tenant_policy().servers.iter().position(|server| server.uid == uid)?;
        self.upstreams.get(index)?.as_ref()
    }

    /// What is the same for all calls of that tool by that principal.
    pub(crate) fn tool_grant(
        &self,
        metrics: &Metrics,
        principal: PrincipalRef<'_>,
        access: ToolAccess<'_>,
    ) -> Arc<ToolGrant> {
        // The tool lives inside this policy: its address names it for as long as this table lives.
        let key = (principal.index(), std::ptr::from_ref(access.tool()).addr());
        if let Some(grant) = self.tool_grants.read().get(&key) {
            return Arc::clone(grant);
        }
        let grant = Arc::new(ToolGrant::new(self, metrics, principal, access));
        Arc::clone(self.tool_grants.write().entry(key).or_insert(grant))
    }

    /// The JSON array of tools that a principal sees of a server.
    pub(crate) fn tool_list(&self, principal: PrincipalRef<'_>, view: View<'_>, report: &Arc<Report>) -> Bytes {
        self.tool_lists.get((principal.index(), view.server_index()), report, || {
            let mut tools = Vec::new();
            list::render(view, &report.tools, &mut tools);
            tools
        })
    }
}
