//! The processes that are measured. Each says on one line of standard output where it listens.

mod listen;
mod pass_through;
mod plain_gateway;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which process to be.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Role {
    /// The tool server: MCP as it is reached directly, and a shim's protocol as the gateway reaches it.
    Upstream {
        /// Its certificate.
        #[arg(long)]
        tls: PathBuf,
    },
    /// A proxy that looks at nothing.
    PassThrough {
        /// Its certificate, which is the gateway's.
        #[arg(long)]
        tls: PathBuf,
        /// The upstream without TLS.
        #[arg(long)]
        plain: SocketAddr,
        /// The upstream with mutual TLS.
        #[arg(long)]
        mutual: SocketAddr,
    },
    /// The gateway behind a listener without TLS, which the product does not have.
    PlainGateway(plain_gateway::Args),
}

impl Role {
    /// Threads of its runtime; absent: one for each processor.
    pub(crate) const fn threads(&self) -> Option<usize> {
        match self {
            Self::Upstream { .. } | Self::PassThrough { .. } => None,
            // As in the product: connections have threads of their own.
            Self::PlainGateway(_) => Some(1),
        }
    }
}

/// Where a front listens.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Fronts {
    /// Without TLS.
    pub(crate) plain: SocketAddr,
    /// With TLS.
    pub(crate) tls: SocketAddr,
}

/// Serves until the process is ended.
pub(crate) async fn serve(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Upstream { tls } => upstream::serve(&tls).await,
        Role::PassThrough { tls, plain, mutual } => pass_through::serve(&tls, plain, mutual).await,
        Role::PlainGateway(args) => plain_gateway::serve(args).await,
    }
}

/// Says where this process listens.
fn announce(addresses: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(addresses)?);
    Ok(())
}
