//! The kinds of objects that the operator makes.

use kube::api::ApiResource;

/// The API of a kind that the index holds.
pub(crate) fn resource_of(kind: &str) -> Option<ApiResource> {
    use k8s_openapi::api::{apps, core, networking, policy, rbac};
    Some(match kind {
        "Deployment" => ApiResource::erase::<apps::v1::Deployment>(&()),
        "StatefulSet" => ApiResource::erase::<apps::v1::StatefulSet>(&()),
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
