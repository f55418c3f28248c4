//! The product's gateway behind a listener without TLS, towards an upstream without TLS.

use std::path::PathBuf;

use mcp_pod::gateway::control;

/// As the product's own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the CA of the operator is.
    #[arg(long)]
    tls_dir: PathBuf,
    #[command(flatten)]
    control: control::Args,
}

pub(super) async fn serve(args: Args) -> anyhow::Result<()> {
    let _ = args;
    Ok(())
}
