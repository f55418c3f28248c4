//! Step two: from an `MCPServer` and its tenant to a server that may run. Pure.

use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::server::{EnvVar, Resources, Workspace};

use super::dereference::Facts;
use crate::controllers::error::ReconcileError;
use crate::kubernetes::labels::{self, Labels};
use crate::policy::images::AllowedImages;

/// A server that may run.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The tenant's name.
    pub tenant: String,
    /// The tenant's UID.
    pub tenant_uid: String,
    /// Where it runs.
    pub runtime_namespace: String,
    /// The image.
    pub image: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<EnvVar>,
    /// Its resources.
    pub resources: Option<Resources>,
    /// Its workspace.
    pub workspace: Option<Workspace>,
    /// Its pods.
    pub replicas: u32,
}

impl Server {
    /// The name of everything that is made for it.
    pub(crate) fn object_name(&self) -> String {
        object_name(&self.name)
    }

    /// The labels of everything that is made for it.
    pub(crate) fn labels(&self) -> Labels {
        let mut labels = labels::of_tenant("server", &self.tenant, &self.tenant_uid);
        labels.insert(labels::SERVER.into(), self.name.clone());
        labels.insert(labels::SERVER_UID.into(), self.uid.clone());
        labels
    }

    /// What selects its pods.
    pub(crate) fn selector(&self) -> Labels {
        let mut labels = labels::selector("server");
        labels.insert(labels::SERVER_UID.into(), self.uid.clone());
        labels
    }
}

/// The name of everything that is made for the server of this name.
pub(crate) fn object_name(server: &str) -> String {
    format!("mcp-{server}")
}

/// Why a server may not run as it is written. What ran before goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For the condition.
    pub reason: ConditionReason,
    /// What to do.
    pub message: String,
    /// Whether it may come right without a change to the server.
    pub waiting: bool,
}

/// Checks it.
pub(crate) fn validate(object: &MCPServer, facts: &Facts) -> Result<Result<Server, Refusal>, ReconcileError> {
    let name = object.metadata.name.clone().ok_or(ReconcileError::Incomplete("metadata.name"))?;
    let uid = object.metadata.uid.clone().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    let refuse = |reason, message: String, waiting| Ok(Err(Refusal { reason, message, waiting }));
    let Some(tenant) = &facts.tenant else {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let message = format!("no MCPTenant owns the namespace {namespace}; nothing is created");
        return refuse(ConditionReason::NamespaceUnclaimed, message, false);
    };
    let tenant_name = tenant.metadata.name.clone().ok_or(ReconcileError::Incomplete("metadata.name"))?;
    let tenant_uid = tenant.metadata.uid.clone().ok_or(ReconcileError::Incomplete("metadata.uid"))?;
    if tenant.metadata.deletion_timestamp.is_some() {
        let message = format!("the tenant {tenant_name} is being deleted");
        return refuse(ConditionReason::TenantNotReady, message, true);
    }
    let Some(stdio) = &object.spec.source.stdio else {
        return refuse(ConditionReason::InvalidSpec, "source.stdio must be set".into(), false);
    };
    if let Err((reason, message)) = AllowedImages::new(&tenant.spec.images).check(&stdio.image) {
        return refuse(reason, message, false);
    }
    if !facts.prepared {
        let message = format!("the runtime namespace of the tenant {tenant_name} is not prepared yet");
        return refuse(ConditionReason::TenantNotReady, message, true);
    }
    Ok(Ok(Server {
        name,
        uid,
        tenant: tenant_name,
        tenant_uid,
        runtime_namespace: tenant.runtime_namespace(),
        image: stdio.image.clone(),
        command: stdio.command.clone(),
        env: stdio.env.clone(),
        resources: stdio.resources.clone(),
        workspace: object.spec.workspace.clone(),
        replicas: object.spec.replicas,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::server::tests::{facts, server};

    fn reason(object: &MCPServer, facts: &Facts) -> Option<ConditionReason> {
        validate(object, facts).unwrap().err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_server_in_an_unclaimed_namespace_creates_nothing() {
        let nobody = Facts { tenant: None, ..facts() };
        assert_eq!(reason(&server(), &nobody), Some(ConditionReason::NamespaceUnclaimed));
    }

    #[test]
    fn a_server_waits_for_the_fences_around_it() {
        let bare = Facts { prepared: false, ..facts() };
        assert_eq!(reason(&server(), &bare), Some(ConditionReason::TenantNotReady));
        assert_eq!(reason(&server(), &facts()), None);
    }

    #[test]
    fn an_image_that_the_tenant_does_not_allow_does_not_run() {
        let mut object = server();
        object.spec.source.stdio.as_mut().unwrap().image = "evil.example/files:1".into();
        assert_eq!(reason(&object, &facts()), Some(ConditionReason::ImageNotAllowed));
    }
}
