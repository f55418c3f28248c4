//! The kinds of the objects in the index.

use kube::api::ApiResource;

/// Returns the API of a kind by its name; none for a kind that is not in the index.
pub(crate) fn resource_of(kind: &str) -> Option<ApiResource> {
    use k8s_openapi::api::{apps, core, networking, policy, rbac};
    Some(match kind {
        "Deployment" => ApiResource::erase::<apps::v1::Deployment>(&()),
        "StatefulSet" => ApiResource::erase::<apps::v1::StatefulSet>(&()),
        "Secret" => ApiResource::erase::<core::v1::Secret>(&()),
        "Service" => ApiResource::erase::<core::v1::Service>(&()),
        "ServiceAccount" => ApiResource::erase::<core::v1::ServiceAccount>(&()),
        "NetworkPolicy" => ApiResource::erase::<networking::v1::NetworkPolicy>(&()),
        "ResourceQuota" => ApiResource::erase::<core::v1::ResourceQuota>(&()),
        "LimitRange" => ApiResource::erase::<core::v1::LimitRange>(&()),
        "PodDisruptionBudget" => ApiResource::erase::<policy::v1::PodDisruptionBudget>(&()),
        "Role" => ApiResource::erase::<rbac::v1::Role>(&()),
        "RoleBinding" => ApiResource::erase::<rbac::v1::RoleBinding>(&()),
        _ => return None,
    })
}
