//! Step two: turns an `MCPServer` and its tenant into a server that may run, or rejects it. Pure.

use std::sync::Arc;

use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::policy::images::AllowedImages;
use mcp_fleet_core::server_config::{Found, check_environment, check_program};
use mcp_fleet_crds::MCPServer;
use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::pod::PodSettings;
use mcp_fleet_crds::quantity::billionths;

use super::config::rejection;
use super::dereference::Inputs;
use super::program::Program;
use super::workspace::{Volume, choose};
use super::{placement, pull};
use crate::controllers::identity::ObjectId;
use crate::controllers::outcome::{Rejection, Until};

/// A server that may run.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub id: ObjectId,
    /// The tenant that owns the server's namespace.
    pub tenant: ObjectId,
    pub runtime_namespace: String,
    /// Boxed, because servers are part of the futures of reconciles.
    pub program: Box<Program>,
    /// What its program is configured with; none if what ran before is maintained.
    pub config: Option<Arc<Found>>,
    /// What its pods are like. Boxed, because servers are part of the futures of reconciles.
    pub pod: Box<PodSettings>,
    /// Names of the Secrets in the runtime namespace with which its image is pulled.
    pub pull_secrets: Vec<String>,
    pub workspace: Option<Volume>,
    /// Number of pods; 0 if it is stopped.
    pub replicas: u32,
    /// Why it is stopped although its spec asks for pods.
    pub stopped: Option<(ConditionReason, String)>,
}

impl Server {
    /// Returns the name of every object that is made for the server.
    pub(crate) fn object_name(&self) -> String {
        object_name(&self.id.name)
    }

    /// Returns the labels of every object that is made for the server.
    pub(crate) fn labels(&self) -> Labels {
        let mut labels = labels::of_tenant("server", &self.tenant.name, &self.tenant.uid);
        labels.insert(labels::SERVER.into(), self.id.name.clone());
        labels.insert(labels::SERVER_UID.into(), self.id.uid.clone());
        labels
    }

    /// Returns the labels that select the server's pods.
    pub(crate) fn selector(&self) -> Labels {
        let mut labels = labels::selector("server");
        labels.insert(labels::SERVER_UID.into(), self.id.uid.clone());
        labels
    }
}

/// Returns the name of every object that is made for the server of this name.
pub(crate) fn object_name(server: &str) -> String {
    format!("mcp-{server}")
}

/// Checks whether a server may run as it is written. If not, what ran for it before goes on running.
pub(crate) fn validate(object: &MCPServer, inputs: &Inputs) -> Result<Server, Rejection> {
    let reject = |reason, message: String, until| Err(Rejection { reason, message, until });
    let Some(owner) = &inputs.owner else {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let message = format!("no MCPTenant owns the namespace {namespace}; nothing is created");
        return reject(ConditionReason::NamespaceUnclaimed, message, Until::Changed);
    };
    if owner.is_being_deleted() {
        let message = format!("the tenant {} is being deleted", owner.id.name);
        return reject(ConditionReason::TenantNotReady, message, Until::Prepared);
    }
    let Some(container) = object.spec.source.container() else {
        return reject(
            ConditionReason::InvalidSpec,
            "the member of source that its type names must be set".into(),
            Until::Changed,
        );
    };
    if let Err((reason, message)) = AllowedImages::new(&owner.tenant.spec.images).check(&container.image) {
        return reject(reason, message, Until::Changed);
    }
    let class = object.spec.workspace.as_ref().and_then(|workspace| workspace.storage_class_name.as_ref());
    // An existing volume has its class for ever, and Kubernetes lets neither claim nor template change.
    let class = class.filter(|class| !inputs.workspace.has_class(&inputs.id, class));
    if let Some(class) = class.filter(|class| !owner.tenant.spec.workspaces.storage_class_names.contains(class)) {
        let message = format!(
            "the tenant's workspaces.storageClassNames does not contain {class}; create a server with a class that it \
             contains, or ask the platform team"
        );
        return reject(ConditionReason::StorageClassNotAllowed, message, Until::Changed);
    }
    let pod = match placement::narrow(&owner.tenant.spec.server_pods, &object.spec.pod) {
        Ok(pod) => Box::new(pod),
        Err(message) => return reject(ConditionReason::PodNotAllowed, message, Until::Changed),
    };
    if !inputs.prepared {
        let message = format!("the runtime namespace of the tenant {} is not prepared yet", owner.id.name);
        return reject(ConditionReason::TenantNotReady, message, Until::Prepared);
    }
    let workspace = object.spec.workspace.as_ref().map(|workspace| &*workspace.mount_path);
    check_program(workspace, container).map_err(rejection)?;
    let config = inputs.config.clone()?;
    check_environment(container, &config).map_err(rejection)?;
    Ok(Server {
        id: inputs.id.clone(),
        tenant: owner.id.clone(),
        runtime_namespace: owner.tenant.runtime_namespace(),
        program: Box::new(Program::new(
            &inputs.id.name,
            container,
            object.spec.source.http(),
            object.spec.idle.as_ref(),
        )),
        pod,
        pull_secrets: pull::copies(object, &owner.tenant),
        config: Some(config),
        workspace: volume(object, inputs),
        replicas: if inputs.missing_resource.is_some() { 0 } else { object.spec.replicas },
        stopped: inputs.missing_resource.as_deref().map(|resource| {
            let message = format!(
                "its pods are stopped, because they do not fit in the tenant's {resource} and its enforcement is \
                 ScaleToZero; lower what this server or an older one uses, or ask the platform team for more"
            );
            (ConditionReason::QuotaExceeded, message)
        }),
    })
}

/// Returns the volume of the server's workspace.
pub(super) fn volume(object: &MCPServer, inputs: &Inputs) -> Option<Volume> {
    let reattach = inputs.owner.as_ref()?.tenant.spec.workspaces.reattach;
    let workspace = object.spec.workspace.as_ref()?;
    // Kubernetes lets no template of claims change.
    let made = inputs.workspace.storage.clone().filter(|made| billionths(&made.0) != billionths(&workspace.storage.0));
    let (storage, wanted) = match made {
        Some(made) => (made, Some(workspace.storage.clone())),
        None => (workspace.storage.clone(), None),
    };
    Some(Volume {
        mount_path: workspace.mount_path.clone(),
        storage,
        wanted,
        storage_class: workspace.storage_class_name.clone(),
        access_mode: workspace.access_mode,
        claim: choose(&inputs.id, &inputs.workspace, reattach),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::server::tests::{inputs, server};

    fn reason(object: &MCPServer, inputs: &Inputs) -> Option<ConditionReason> {
        validate(object, inputs).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn a_server_in_an_unclaimed_namespace_creates_nothing() {
        let unclaimed = Inputs { owner: None, ..inputs() };
        assert_eq!(reason(&server(), &unclaimed), Some(ConditionReason::NamespaceUnclaimed));
    }

    #[test]
    fn a_server_waits_for_the_restrictions_of_its_namespace() {
        let unprepared = Inputs { prepared: false, ..inputs() };
        assert_eq!(reason(&server(), &unprepared), Some(ConditionReason::TenantNotReady));
        assert_eq!(reason(&server(), &inputs()), None);
    }

    #[test]
    fn an_image_that_the_tenant_does_not_allow_does_not_run() {
        let mut object = server();
        object.spec.source.stdio.as_mut().unwrap().image = "evil.example/files:1".into();
        assert_eq!(reason(&object, &inputs()), Some(ConditionReason::ImageNotAllowed));
    }
}
