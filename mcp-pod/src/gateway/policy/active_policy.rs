//! One generation of the policy, with everything that is worth computing once.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use mcp_fleet_policy::breaker::Breakers;
use mcp_fleet_policy::engine::{CompileError, Policy, PrincipalRef, ServerAccess, ToolAccess};
use mcp_fleet_policy::list;
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::RwLock;

use super::ToolGrant;
use super::tool_lists::ToolLists;
use crate::gateway::audit::ArgumentKey;
use crate::gateway::memory::{Memory, PrincipalMemory};
use crate::gateway::metrics::Metrics;
use crate::gateway::request::{SealError, SessionSealer, TokenVerifier};
use crate::gateway::upstream::{Dialer, Report, Upstream};
use crate::tls::TlsError;

/// Why a policy was not installed. The previous policy stays in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A newer generation is in force.
    #[error("failed to install generation {offered}: generation {current} is in force")]
    Older {
        /// Generation of the policy that was not installed.
        offered: u64,
        /// Generation in force.
        current: u64,
    },
    /// The policy contradicts itself, or has a rule that cannot be enforced.
    #[error("failed to compile the policy")]
    Compile(#[from] CompileError),
    /// The session key of the policy is not usable.
    #[error("failed to use the policy's session key")]
    SessionKey(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The identity of a server is not usable for TLS.
    #[error("failed to prepare the TLS configuration for a server")]
    Upstream(#[from] TlsError),
}

impl From<SealError> for InstallError {
    fn from(error: SealError) -> Self {
        Self::SessionKey(Box::new(error))
    }
}

/// A policy with its lookup tables, and the caches that live as long as it does.
#[derive(Debug)]
pub(crate) struct ActivePolicy {
    pub(crate) compiled: Policy,
    pub(crate) token_verifier: Arc<TokenVerifier>,
    pub(crate) session_sealer: SessionSealer,
    pub(crate) argument_key: ArgumentKey,
    /// What each principal may use of the memory, by its index.
    memory: Vec<PrincipalMemory>,
    /// Upstreams by the index of the server.
    upstreams: Vec<Arc<Upstream>>,
    /// Grants by index of the principal and address of the tool, added when a tool is first called.
    tool_grants: RwLock<HashMap<(usize, usize), Arc<ToolGrant>, foldhash::fast::RandomState>>,
    tool_lists: ToolLists,
}

impl ActivePolicy {
    /// Prepares a policy. Connections, verified tokens and the memory in use are taken over from `previous` where nothing
    /// changed.
    pub(crate) fn new(
        policy: TenantPolicy,
        dialer: &Dialer,
        memory: &Memory,
        previous: Option<&Self>,
    ) -> Result<Self, InstallError> {
        let known: HashMap<&str, &PrincipalMemory> = previous.into_iter().flat_map(Self::memory_by_uid).collect();
        let of_principal = |uid: &str| known.get(uid).map_or_else(|| memory.of_principal(), |&known| known.clone());
        let shares = policy.principals.iter().map(|principal| of_principal(&principal.uid)).collect();
        let token_verifier = TokenVerifier::for_policy(&policy, previous.map(|previous| &previous.token_verifier));
        let session_sealer = SessionSealer::new(&policy.session_key)?;
        let argument_key = ArgumentKey::new(&policy.session_key);
        let upstreams = policy
            .servers
            .iter()
            .map(|server| {
                Upstream::for_server(
                    server,
                    dialer,
                    memory,
                    previous.and_then(|previous| previous.upstream_of(&server.uid)),
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            compiled: Policy::new(policy)?,
            token_verifier,
            session_sealer,
            argument_key,
            memory: shares,
            upstreams,
            tool_grants: RwLock::default(),
            tool_lists: ToolLists::default(),
        })
    }

    /// Returns the policy as it was published.
    pub(crate) fn tenant_policy(&self) -> &TenantPolicy {
        self.compiled.model()
    }

    /// Returns the memory that a principal may use.
    pub(crate) fn memory(&self, principal: PrincipalRef<'_>) -> &PrincipalMemory {
        &self.memory[principal.index()]
    }

    /// Returns the memory that the principal with that index may use.
    pub(crate) fn memory_at(&self, index: usize) -> Option<&PrincipalMemory> {
        self.memory.get(index)
    }

    fn memory_by_uid(&self) -> impl Iterator<Item = (&str, &PrincipalMemory)> {
        self.tenant_policy().principals.iter().map(|principal| principal.uid.as_str()).zip(&self.memory)
    }

    /// Returns the upstream of the server with that index.
    pub(crate) fn upstream(&self, server_index: usize) -> &Arc<Upstream> {
        &self.upstreams[server_index]
    }

    /// Returns the names of all servers with their upstreams.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.tenant_policy().servers.iter().map(|server| server.name.as_str()).zip(&self.upstreams)
    }

    /// Returns the UIDs of all servers with their upstreams.
    pub(crate) fn upstreams_by_uid(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.tenant_policy().servers.iter().map(|server| server.uid.as_str()).zip(&self.upstreams)
    }

    /// Returns all upstreams.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter()
    }

    /// Returns the upstream of the server with that UID.
    pub(crate) fn upstream_of(&self, uid: &str) -> Option<&Arc<Upstream>> {
        let index = self.tenant_policy().servers.iter().position(|server| server.uid == uid)?;
        self.upstreams.get(index)
    }

    /// Returns the grant of a tool to a principal.
    pub(crate) fn tool_grant(
        &self,
        metrics: &Metrics,
        breakers: &Breakers,
        principal: PrincipalRef<'_>,
        access: ToolAccess<'_>,
    ) -> Arc<ToolGrant> {
        // The tool is part of this policy, so its address is unique for as long as this table exists.
        let key = (principal.index(), std::ptr::from_ref(access.tool()).addr());
        if let Some(grant) = self.tool_grants.read().get(&key) {
            return Arc::clone(grant);
        }
        let grant = Arc::new(ToolGrant::new(self, metrics, breakers, principal, access));
        Arc::clone(self.tool_grants.write().entry(key).or_insert(grant))
    }

    /// Returns the JSON array of the tools of a server that a principal sees. `reserve` reserves memory for rendering it.
    pub(crate) fn tool_list<E>(
        &self,
        principal: PrincipalRef<'_>,
        view: ServerAccess<'_>,
        report: &Arc<Report>,
        reserve: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        self.tool_lists.get((principal.index(), view.server_index()), report, || {
            let mut tools = Vec::new();
            list::render(view, report.tools.as_ref(), self.tenant_policy().built_in_tools, reserve, &mut tools)?;
            Ok(tools)
        })
    }
}
