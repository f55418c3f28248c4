//! Connecting to the operator: TLS to a configured address and name, authenticated by the pod's token.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_fleet_control::version::MAX_MESSAGE;
use mcp_fleet_control::wire::control_client::ControlClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Longest time for the TCP connection and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may be silent before it is pinged, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// Opens connections to the operator. Contains no connection and no secret.
#[derive(Clone, Debug)]
pub(super) struct OperatorDialer {
    pub(super) address: SocketAddr,
    pub(super) name: String,
    pub(super) token_file: PathBuf,
    pub(super) ca_file: PathBuf,
}

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("failed to read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("failed to use the token in {0}: it is empty or not ASCII")]
    Token(PathBuf),
    #[error("failed to connect to the operator at {address}")]
    Connect { address: SocketAddr, source: tonic::transport::Error },
    #[error("failed to connect to the operator at {0} in time")]
    Timeout(SocketAddr),
}

impl OperatorDialer {
    /// Opens a connection, and returns it with the `authorization` header for the stream on it.
    pub(super) async fn dial(&self) -> Result<(ControlClient<Channel>, MetadataValue<Ascii>), DialError> {
        // Both files are read each time: the kubelet rotates the token, and the operator the CA.
        let token = read(&self.token_file).await?;
        let ca = read(&self.ca_file).await?;
        let token = token.trim();
        let mut bearer: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| DialError::Token(self.token_file.clone()))?;
        if token.is_empty() {
            return Err(DialError::Token(self.token_file.clone()));
        }
        bearer.set_sensitive(true);
        let failed = |source| DialError::Connect { address: self.address, source };
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(self.name.as_str());
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        // `connect_timeout` only covers the TCP connection, so the TLS handshake needs its own timeout.
        let channel = match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
            Ok(connected) => connected.map_err(failed)?,
            Err(_) => return Err(DialError::Timeout(self.address)),
        };
        let client =
            ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Ok((client, bearer))
    }
}

async fn read(path: &Path) -> Result<String, DialError> {
    tokio::fs::read_to_string(path).await.map_err(|source| DialError::Read { path: path.to_owned(), source })
}
