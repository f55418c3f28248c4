//! The shim in front of a tool server: `mcp-pod shim`, process 1 of the tool container.
//!
//! It starts the user's command in a [`sandbox`], makes the one `initialize`, and passes calls of the gateway, and of
//! nobody else, to it: over mutual TLS on one side, newline JSON-RPC on pipes on the other.
//!
//! - [`http`]: the listeners; [`call`]: one call; [`paths`]: its path arguments.
//! - [`server`]: keeps the server running, and everything that is said to it.
//!
//! It has one thread: what it does for a call is to copy bytes, and the server is the one that works.

mod call;
mod http;
mod metrics;
mod paths;
pub mod sandbox;
mod server;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::tls::{Identity, server_config_mutual};

/// What the operator says on the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory with tls.crt, tls.key and ca.crt; read again when they change.
    #[arg(long, value_name = "DIR", default_value = "/mcp-fleet/tls")]
    pub tls_dir: PathBuf,
    /// URI SAN of the one client that may call.
    #[arg(long, value_name = "URI")]
    pub gateway_identity: String,
    /// Directory that the server may read and write, beside /tmp.
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Directories that the server must not see into; --tls-dir always is one.
    #[arg(long = "private", value_name = "DIR", default_value = "/mcp-fleet")]
    pub private: Vec<PathBuf>,
    /// Where the gateway calls, over mutual TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are, in the clear.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9090")]
    pub metrics_listen: SocketAddr,
    /// How long the server may take from its start to the end of its tool list.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub start_timeout: u64,
    /// How long calls in flight may take when the shim is told to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub drain_timeout: u64,
    /// The server's command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// How often certificate files are looked at.
const FOLLOW_FILES: Duration = Duration::from_secs(10);

/// Runs the shim until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    // With this, other processes of the uid cannot look into this one, sandbox or not (ptrace(2), proc(5)).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("failed to close the process to others")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // File systems that are slow to resolve a path get a few threads, and no more.
        .max_blocking_threads(8)
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let identity = Identity::load(&args.tls_dir)?;
    tokio::spawn(Arc::clone(&identity).follow(FOLLOW_FILES));
    let acceptor = TlsAcceptor::from(server_config_mutual(identity, &args.gateway_identity)?);
    let calls = TcpListener::bind(args.listen).await.context("failed to listen for calls")?;
    let health = TcpListener::bind(args.metrics_listen).await.context("failed to listen for probes")?;
    info!(calls = %calls.local_addr()?, health = %health.local_addr()?, "listening");

    let metrics = Arc::new(metrics::Metrics::new().context("failed to register metrics")?);
    let mut private = args.private;
    private.push(args.tls_dir);
    let spec = server::Spec {
        workspace: args.workspace,
        private,
        command: args.command,
        start_timeout: Duration::from_secs(args.start_timeout),
        drain_timeout: Duration::from_secs(args.drain_timeout),
    };
    let server = server::Server::new(spec, Arc::clone(&metrics));
    let context = Arc::new(http::Context { server: Arc::clone(&server), metrics });

    let stop_server = CancellationToken::new();
    let stop_listening = CancellationToken::new();
    tokio::spawn(stop_at_signal(stop_server.clone())?);
    let doors = [(calls, http::Door::Calls(acceptor)), (health, http::Door::Health)].map(|(listener, door)| {
        tokio::spawn(http::serve(listener, door, Arc::clone(&context), stop_listening.clone()))
    });

    let ran = server.run(stop_server).await.context("failed to look after the server");
    stop_listening.cancel();
    for door in doors {
        door.await?;
    }
    ran
}

fn stop_at_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping: no new calls, those in flight may end");
        stop.cancel();
    })
}
