//! Events about the spend of a budget, and the record of who topped it up.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry};
use kube::{Api, Resource, ResourceExt};
use mcp_fleet_crds::condition::{self, ConditionReason, ConditionType};
use mcp_fleet_crds::names::TOP_UP;
use serde::de::DeserializeOwned;

use crate::kubernetes::events::Events;

/// Writes an Event when a budget begins to be near its limit, or goes on beyond it.
pub(super) async fn report<K: Resource<DynamicType = ()>>(
    events: &Events,
    object: &K,
    before: &[Condition],
    after: &[Condition],
) {
    for kind in [ConditionType::NearLimit, ConditionType::Exceeded] {
        if let Some(is) = condition::find(after, kind)
            && condition::is_true(after, kind)
            && !condition::is_true(before, kind)
        {
            events.warning(object, &is.reason, "Spend", is.message.clone()).await;
        }
    }
}

/// Writes an Event and a log line when the top-up of a budget takes effect, changes or ends by hand, or is not valid.
///
/// The API server records the field manager of an annotation, which the client chooses; who it was is in its audit log.
pub(super) async fn report_top_up<K>(
    events: &Events,
    api: &Api<K>,
    object: &K,
    before: &[Condition],
    after: &[Condition],
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let kind = ConditionType::ToppedUp;
    let (was, is) = (condition::find(before, kind), condition::find(after, kind));
    let said = |condition: Option<&Condition>| condition.map(|it| (it.reason.clone(), it.message.clone()));
    let reported = [ConditionReason::TopUpApplied, ConditionReason::InvalidTopUp].map(ConditionReason::as_str);
    let Some(is) = is.filter(|is| reported.contains(&is.reason.as_str()) && said(was) != said(Some(is))) else {
        return;
    };
    let managers = match api.get_metadata(&object.name_any()).await {
        Ok(found) => managers(found.metadata.managed_fields.as_deref().unwrap_or_default()),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to read who topped up a budget");
            String::new()
        }
    };
    let (budget, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    tracing::info!(
        namespace,
        budget,
        managers,
        reason = is.reason,
        message = is.message,
        "the top-up of a budget changed"
    );
    if is.status == "True" {
        let by = if managers.is_empty() { String::new() } else { format!(", by the field manager {managers}") };
        events.normal(object, &is.reason, "TopUp", format!("{}{by}", is.message)).await;
    } else {
        events.warning(object, &is.reason, "TopUp", is.message.clone()).await;
    }
}

/// Returns the names of the field managers that own the annotation.
fn managers(fields: &[ManagedFieldsEntry]) -> String {
    let owns = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| !fields.0["f:metadata"]["f:annotations"][format!("f:{TOP_UP}")].is_null())
    };
    let names: BTreeSet<&str> = fields.iter().filter(owns).filter_map(|entry| entry.manager.as_deref()).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_managers_of_the_annotation_are_named() {
        let entry = |manager: &str, key: &str| json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:metadata": {"f:annotations": {key: {}}}}});
        let spec = json!({"manager": "argocd", "fieldsV1": {"f:spec": {"f:amount": {}}}});
        let key = format!("f:{TOP_UP}");
        let fields = json!([entry("on-call", &key), entry("other", "f:note"), spec, {"manager": "empty"}]);
        let fields: Vec<ManagedFieldsEntry> = serde_json::from_value(fields).expect("field managers");
        assert_eq!(managers(&fields), "on-call");
    }
}
