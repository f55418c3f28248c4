//! Parts of manifests that several kinds share.

pub(crate) mod network;
pub(crate) mod pod;
pub(crate) mod resources;
pub(crate) mod settings;

/// Name of the gateway's volume with the certificate of a public name.
pub(crate) const PUBLIC_TLS: &str = "public-tls";

/// Returns the name of the Secret with the certificate and key of a workload.
pub(crate) fn tls_secret_name(workload: &str) -> String {
    format!("{workload}-tls")
}
