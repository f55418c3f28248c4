//! The product's gateway behind a listener without TLS, with an upstream without TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use mcp_pod::gateway::{Audit, Control, ControlArgs, Dialer, Memory, State, Workers, default_budget, listen_plain};
use mcp_pod::tls::PublicNames;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::announce;

/// Arguments, as those of the product.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the operator's CA.
    #[arg(long)]
    tls_dir: PathBuf,
    #[command(flatten)]
    control: ControlArgs,
}

/// Serves until the process is killed.
pub(super) async fn serve(args: Args) -> anyhow::Result<()> {
    let Args { tls_dir, control } = args;
    // The same audit sink as that of the product in the other rows.
    let sink = std::fs::OpenOptions::new().write(true).open("/dev/null").context("failed to open /dev/null")?;
    let control = Control::new(&control, &tls_dir.join("ca.crt"));
    let state = State::new(
        control.leases(),
        Dialer::Plain,
        Audit::start(sink, Duration::from_millis(500))?,
        Memory::new(default_budget()),
        PublicNames::new(Path::new("/nonexistent")),
    )?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?)?;
    tokio::spawn(listen_plain(listener, Workers::start()?, state.clone()));
    control.run(state, CancellationToken::new()).await;
    Ok(())
}
