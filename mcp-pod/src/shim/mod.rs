//! The shim in front of a tool server: `mcp-pod shim`, process 1 of the tool container.
//!
//! It starts the user's command in a [`sandbox`] and initializes it as an MCP server. It receives calls over mutual TLS,
//! from the gateway only, and passes them to the server as JSON-RPC lines on pipes.
//!
//! - [`http`]: the listener for calls; [`call`]: one call; [`paths`]: its path arguments.
//! - [`server`]: keeps the server running and talks to it.
//!
//! One thread is enough for calls: the shim only copies bytes, and the work is done in the server. A second thread
//! monitors the system calls of the sandbox, so that they do not wait for calls.

mod call;
mod http;
mod metrics;
mod paths;
mod processes;
pub mod sandbox;
mod server;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mcp_fleet_admin::Admin;
use prometheus::Registry;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::tls::{Identity, server_config_mutual};
use server::Supervisor;

/// Command line of the shim, as the operator writes it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory with tls.crt, tls.key and ca.crt. They are reloaded when they change.
    #[arg(long, value_name = "DIR", default_value = "/mcp-fleet/tls")]
    tls_dir: PathBuf,
    /// URI SAN of the only client that may call.
    #[arg(long, value_name = "URI")]
    gateway_identity: String,
    /// Directory that the server may read and write, in addition to /tmp.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    mounts: sandbox::Mounts,
    #[command(flatten)]
    http: HttpArgs,
    /// Directories that the server must not read. --tls-dir always is one of them.
    #[arg(long = "private", value_name = "DIR", default_value = "/mcp-fleet")]
    private: Vec<PathBuf>,
    /// Directories and files that the server may read and execute. The default is the root file system without other mounts,
    /// which in a container is the server's image.
    #[arg(long, value_name = "PATH")]
    readable: Vec<PathBuf>,
    /// Processes and threads that the server may have at a time.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_processes: u32,
    /// Address to listen on for calls of the gateway, with mutual TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// Address to listen on for /healthz, /readyz and /metrics, without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:9090")]
    metrics_listen: SocketAddr,
    /// Time for the server to start and list its tools.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    start_timeout: u64,
    /// Time for the server to end by itself when its input is closed. Then it gets SIGTERM, and two seconds later it is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    stop_grace: u64,
    /// Time for calls in flight to end when the shim stops.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    drain_timeout: u64,
    /// Time without a call after which the server is stopped. The next call starts it again.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    idle_stop: Option<u64>,
    /// The server's command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Options of a server that serves MCP over HTTP.
#[derive(Clone, Debug, clap::Args)]
struct HttpArgs {
    /// TCP port on which the server serves MCP over HTTP, instead of speaking over its standard input and output.
    #[arg(id = "http_port", long = "http-port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Path of the MCP endpoint, or of the event stream.
    #[arg(long = "http-path", value_name = "PATH", default_value = "/mcp", requires = "http_port")]
    path: String,
    /// How the server serves MCP.
    #[arg(long = "http-transport", value_name = "TRANSPORT", value_enum, default_value_t, requires = "http_port")]
    transport: server::HttpTransport,
}

impl HttpArgs {
    /// Returns where the server serves HTTP, if it does.
    fn endpoint(self) -> anyhow::Result<Option<server::Endpoint>> {
        let Self { port, path, transport } = self;
        let Some(port) = port else { return Ok(None) };
        let path = path.parse().context("--http-path is not a path")?;
        Ok(Some(server::Endpoint { port, path, transport }))
    }
}

/// How often the certificate files are checked for changes.
const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the shim until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    // Keeps other processes of the same uid, sandboxed or not, from inspecting this one (ptrace(2), proc(5)).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("failed to make the process undumpable")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For path checks on slow file systems.
        .max_blocking_threads(8)
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let identity = Identity::load(&args.tls_dir)?;
    tokio::spawn(Arc::clone(&identity).follow(TLS_RELOAD_INTERVAL));
    let acceptor = TlsAcceptor::from(server_config_mutual(identity, &args.gateway_identity)?);
    let calls = mcp_fleet_admin::listen(args.listen).await.context("failed to listen for calls")?;
    let health = mcp_fleet_admin::listen(args.metrics_listen).await.context("failed to listen for probes")?;
    info!(calls = %calls.local_addr()?, health = %health.local_addr()?, "listening");

    let metrics = Arc::new(metrics::Metrics::new().context("failed to register metrics")?);
    let mut private = args.private;
    private.push(args.tls_dir);
    let max_processes = usize::try_from(args.max_processes)?;
    let config = server::Config {
        profile: sandbox::Profile {
            workspace: args.workspace,
            mounts: args.mounts,
            private,
            readable: args.readable,
            max_processes,
            port: args.http.port,
        },
        command: args.command,
        http: args.http.endpoint()?,
        start_timeout: Duration::from_secs(args.start_timeout),
        stop_grace: Duration::from_secs(args.stop_grace),
        drain_timeout: Duration::from_secs(args.drain_timeout),
        idle_stop: args.idle_stop.map(Duration::from_secs),
    };
    let supervisor = Supervisor::new(config, Arc::clone(&metrics));
    let admin = admin(Arc::clone(&supervisor), metrics.registry());
    let context = Arc::new(http::Context { supervisor: Arc::clone(&supervisor), metrics, calls: Arc::default() });

    let stop_server = CancellationToken::new();
    let stop_listening = CancellationToken::new();
    tokio::spawn(stop_at_signal(stop_server.clone())?);
    let listeners = [
        tokio::spawn(http::serve(calls, acceptor, context, stop_listening.clone())),
        tokio::spawn(mcp_fleet_admin::serve(health, admin, stop_listening.clone())),
    ];

    let ran = supervisor.run(stop_server).await.context("failed to supervise the server");
    stop_listening.cancel();
    for listener in listeners {
        listener.await?;
    }
    ran
}

/// Returns the health probes and metrics. All of the shim runs on one thread, so any response proves that it is alive.
fn admin(supervisor: Arc<Supervisor>, registry: Registry) -> Admin {
    let ready = move || {
        let status = supervisor.status();
        if status.ready.is_some() || status.idle.is_some() { Ok(()) } else { Err(status.message.clone().into()) }
    };
    Admin { alive: Box::new(|| Ok(())), ready: Box::new(ready), registry }
}

/// Cancels `stop` on SIGTERM or SIGINT.
fn stop_at_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping: new calls are refused, calls in flight may end");
        stop.cancel();
    })
}
