//! Parts that the manifests of all kinds share. Pure.

pub(crate) mod network;
pub(crate) mod pod;
pub(crate) mod settings;

/// The name of the Secret that holds the certificate and key of a workload.
pub(crate) fn tls_secret_name(workload: &str) -> String {
    format!("{workload}-tls")
}
