//! Takes over the records of a tenant that was restored from a backup: what its budgets have spent, and its revocations.
//!
//! Both are stored by UID, and in a new cluster every object has another one. An administrator names the tenant's UID in the
//! backup in an annotation of the `MCPTenant`, which tenants cannot write. The records are taken over by the names in them,
//! before the policy is published: until then nobody can spend anything.

use kube::{Resource as _, ResourceExt};
use mcp_fleet_core::labels::RESTORED_FROM;
use mcp_fleet_core::ledger::Restored;
use mcp_fleet_core::policy::compile::TenantInputs;
use mcp_fleet_crds::MCPTenant;

use super::snapshot::PublishError;
use super::worker::Worker;
use crate::credentials::revocation::Revoked;

/// Returns the UID that the tenant had in the backup; none if it was not restored.
pub(super) fn restored_from(tenant: &MCPTenant) -> Option<&str> {
    let from = tenant.meta().annotations.as_ref()?.get(RESTORED_FROM)?;
    (tenant.meta().uid.as_ref() != Some(from)).then_some(from)
}

impl Worker {
    /// Takes over the records of the tenant in the backup, if the tenant was restored from one.
    pub(super) async fn restore(&self, inputs: &mut TenantInputs) -> Result<(), PublishError> {
        let ctx = &self.ctx;
        let Some(from) = restored_from(&inputs.tenant).map(str::to_owned) else { return Ok(()) };
        let tenant = inputs.tenant.name_any();
        if ctx.cache.has_tenant(&from) {
            return Err(PublishError::Restore(
                format!("the tenant with the UID {from} exists; correct or remove the annotation {RESTORED_FROM}")
                    .into(),
            ));
        }
        let Some(leader) = ctx.shared_state.policies.leader_state() else { return Ok(()) };
        let budgets = inputs.budgets.iter().filter_map(|budget| Some((budget.name_any(), budget.uid()?))).collect();
        let restored = Restored { from: &from, tenant: &tenant, tenant_uid: &self.uid, budgets };
        let books = leader.ledger.restore(&restored).await.map_err(|error| PublishError::Restore(error.into()))?;
        let known = ctx.revocations.of_tenant(&tenant, &from);
        let mut revocations = 0;
        for principal in &inputs.principals {
            let (name, Some(uid)) = (principal.name_any(), principal.uid()) else { continue };
            let Some(&until) = known.get(&name) else { continue };
            let revoked = Revoked { uid: &uid, name: &name, until };
            let exists = |uid: &str| ctx.cache.has_principal(uid);
            let raised = ctx.revocations.raise((&tenant, &self.uid), revoked, exists).await;
            revocations += usize::from(raised.map_err(|error| PublishError::Restore(error.into()))?);
            inputs.revocations.insert(uid.clone(), ctx.revocations.get(&uid).unwrap_or(until));
        }
        if books > 0 || revocations > 0 {
            tracing::info!(tenant, from, books, revocations, "took over the records of a restored tenant");
            let note = format!(
                "took over the ledgers ({books}) and revocations ({revocations}) of the tenant's UID in the backup, {from}"
            );
            ctx.events.normal(&*inputs.tenant, "Restored", "Restore", note).await;
        }
        Ok(())
    }
}
