//! The measured programs. Each prints the addresses that it listens on as its first line.

mod listen;
mod pass_through;
mod plain_gateway;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which program to run.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Role {
    /// The tool server: MCP for direct calls, and the protocol of a shim for the gateway.
    Upstream {
        /// Folder of its certificate.
        #[arg(long)]
        tls: PathBuf,
    },
    /// A proxy that forwards everything unchecked.
    PassThrough {
        /// Folder of its certificate, which is that of the gateway.
        #[arg(long)]
        tls: PathBuf,
        /// Address of the upstream without TLS.
        #[arg(long)]
        plain: SocketAddr,
        /// Address of the upstream with mutual TLS.
        #[arg(long)]
        mutual: SocketAddr,
    },
    /// The gateway behind a listener without TLS, which the product does not have.
    PlainGateway(plain_gateway::Args),
}

impl Role {
    /// Returns the number of runtime threads; `None` for one per processor.
    pub(crate) const fn threads(&self) -> Option<usize> {
        match self {
            Self::Upstream { .. } | Self::PassThrough { .. } => None,
            // As in the product, where connections have separate threads.
            Self::PlainGateway(_) => Some(1),
        }
    }
}

/// Addresses of the pass-through proxy.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Fronts {
    /// Without TLS.
    pub(crate) plain: SocketAddr,
    /// With TLS.
    pub(crate) tls: SocketAddr,
}

/// Runs a role until the process is killed.
pub(crate) async fn serve(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Upstream { tls } => upstream::serve(&tls).await,
        Role::PassThrough { tls, plain, mutual } => pass_through::serve(&tls, plain, mutual).await,
        Role::PlainGateway(args) => plain_gateway::serve(args).await,
    }
}

/// Prints the addresses of this process.
fn announce(addresses: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(addresses)?);
    Ok(())
}
