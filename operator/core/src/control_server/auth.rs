//! Authenticates gateways. Start at [`authenticate`].

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::hub::Hub;
use crate::error::BoxError;

/// Maximum length of a token.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// An authenticated gateway pod.
#[derive(Clone, Debug)]
pub struct GatewayPod {
    pub tenant: String,
    pub tenant_uid: String,
    /// Runtime namespace of the tenant.
    pub namespace: String,
    pub pod: String,
    pub pod_uid: String,
    /// How long the pod's token is still valid.
    pub token_valid_for: Duration,
}

/// Why a gateway is not served.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("there is no bearer token")]
    NoToken,
    #[error("the API server does not accept the token: {0}")]
    NotAuthenticated(String),
    #[error("{0} is not the ServiceAccount of a gateway")]
    NotGateway(String),
    #[error("the token is not bound to a pod")]
    NotBound,
    #[error("pod {0} was deleted or replaced")]
    Gone(String),
    #[error("pod {0} does not belong to the Deployment of its tenant's gateway")]
    NotTheGateway(String),
    #[error("namespace {0} is not the runtime namespace of a tenant")]
    NoTenant(String),
    #[error("failed to {verb}")]
    Api { verb: &'static str, source: BoxError },
}

impl AuthError {
    /// Converts the error to the gRPC status that the gateway gets.
    pub(super) fn status(&self) -> Status {
        let code = match self {
            Self::NoToken | Self::NotAuthenticated(_) => Code::Unauthenticated,
            Self::Api { .. } => Code::Unavailable,
            _ => Code::PermissionDenied,
        };
        Status::new(code, self.to_string())
    }
}

/// Authenticates the gateway that opens a stream.
pub(super) async fn authenticate(hub: &Hub, metadata: &MetadataMap) -> Result<GatewayPod, AuthError> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).filter(|token| token.len() <= MAX_TOKEN_BYTES);
    hub.gateways.authenticate(token.ok_or(AuthError::NoToken)?).await
}
