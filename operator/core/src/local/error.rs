//! Why a fleet on one machine does not work.

use std::path::PathBuf;

use crate::control_server;

/// Why a fleet on one machine does not work.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A folder or a file cannot be read or written.
    #[error("failed to use {path}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file has been damaged.
    #[error("{0} is damaged; restore it, or delete the state folder to begin without any keys, policies and spending")]
    Damaged(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificate authority does not work.
    #[error(transparent)]
    Authority(#[from] crate::credentials::ca::CaError),
    /// A tenant's keys cannot be made or read.
    #[error(transparent)]
    Keys(#[from] crate::credentials::tokens::KeyError),
    /// The control server has no certificate.
    #[error(transparent)]
    Tls(#[from] control_server::TlsError),
    /// The control server cannot listen.
    #[error(transparent)]
    Control(#[from] control_server::ListenError),
    /// The metrics cannot be served.
    #[error("failed to serve the metrics")]
    Metrics(#[source] std::io::Error),
    /// Two metrics have the same name.
    #[error("failed to register the metrics")]
    Registry(#[from] prometheus::Error),
    /// A policy cannot be put in force.
    #[error("failed to put the policy in force")]
    Publish(#[source] Box<dyn std::error::Error + Send + Sync>),
}
