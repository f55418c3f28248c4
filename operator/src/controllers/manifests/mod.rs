//! Parts of manifests that several kinds share.

pub(crate) mod network;
pub(crate) mod placement;
pub(crate) mod pod;
pub(crate) mod resources;
pub(crate) mod settings;

/// Name of the gateway's port for other gateways of the tenant.
pub(crate) const PEER_PORT_NAME: &str = "peers";

/// Returns the name of the Secret with the certificate and key of a workload.
pub(crate) fn tls_secret_name(workload: &str) -> String {
    format!("{workload}-tls")
}
