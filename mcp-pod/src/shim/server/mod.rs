//! Keeps the tool server running: starts it in its sandbox, and starts it again when it ends.
//!
//! - [`process`] and [`reaper`]: the process of a run, and what remains of it; [`backoff`]: the pauses between runs.
//! - [`rpc`]: requests and responses of one run; [`pipes`] and [`frame`]: their I/O; [`http`]: that of a server that serves HTTP.
//! - [`start`]: `initialize` and the list of tools.
//! - [`idle`]: the calls, to stop a server that nobody calls until somebody does.
//!
//! Each run has an epoch, counted from 1. When a run ends, its requests end with it; they are never sent again.

mod backoff;
mod frame;
mod http;
mod idle;
mod pipes;
mod process;
mod reaper;
pub(super) mod rpc;
mod start;

pub(super) use http::{Endpoint, HttpTransport};
pub(super) use idle::Needed;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustix::process::WaitStatus;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics::Metrics;
use super::sandbox::{EXIT_NO_SANDBOX, MonitorError, Profile};
use crate::envelope::ServerReport;
use backoff::Backoff;
use http::HttpEnd;
use idle::Activity;
use pipes::{PipeEnd, Text};
use process::Process;
use reaper::Reaper;
use rpc::{MAX_QUEUED_BYTES, Phase, QueueError, RpcClient};
use start::StartError;

/// Shortest time between two lists of tools, however often the server says that they have changed.
const LIST_PAUSE: Duration = Duration::from_secs(2);

/// How the server is run.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) profile: Profile,
    pub(super) command: Vec<OsString>,
    /// Where the server serves MCP over HTTP. None: it speaks over its standard input and output.
    pub(super) http: Option<Endpoint>,
    /// Time from the start of the process to the end of the tool list.
    pub(super) start_timeout: Duration,
    /// Time for the process to end after its input was closed.
    pub(super) stop_grace: Duration,
    /// Time for calls in flight to end when the shim stops.
    pub(super) drain_timeout: Duration,
    /// Time without a call after which the server is stopped until the next one. None: it always runs.
    pub(super) idle_stop: Option<Duration>,
}

/// The state of the server.
#[derive(Debug)]
pub(super) struct Status {
    /// How often the server was started.
    pub(super) epoch: u64,
    /// The server, if it takes calls.
    pub(super) ready: Option<Ready>,
    /// The last [`crate::envelope::ServerReport`] of a server that is stopped because nobody calls it, or that starts for a
    /// call after that. Calls wait for it.
    pub(super) idle: Option<Bytes>,
    /// Why the server is not ready, for people.
    pub(super) message: String,
}

/// A server that takes calls.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) client: Arc<RpcClient>,
    /// The serialized [`crate::envelope::ServerReport`].
    pub(super) report: Bytes,
}

/// Runs the tool server and publishes its status.
#[derive(Debug)]
pub(super) struct Supervisor {
    status: ArcSwap<Status>,
    /// Notifies calls that wait of a new status.
    status_changed: Notify,
    activity: Arc<Activity>,
    /// Bytes of calls that may wait for the server to start: as many as may be queued once it runs.
    room: Semaphore,
    metrics: Arc<Metrics>,
    config: Config,
}

/// Why a run ended.
#[derive(Debug, thiserror::Error)]
enum RunEnd {
    #[error("failed to start the sandbox")]
    Spawn(#[source] std::io::Error),
    #[error("the sandbox could not be set up; the log says why")]
    NoSandbox,
    #[error("the server was stopped: its sandbox is not monitored any more")]
    Monitor(#[source] MonitorError),
    #[error("the server ended with {0}")]
    Exited(String),
    #[error("the server was stopped: {0}")]
    Pipe(PipeEnd),
    #[error("the server was stopped: {0}")]
    Http(HttpEnd),
    /// What has the port must not be taken for the server.
    #[error("the server was not started: another program listens on port {0}")]
    InUse(u16),
    #[error("the server did not start within {} s: {}", .limit.as_secs(), .phase.missing())]
    StartTimeout { limit: Duration, phase: Phase },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("failed to write the report")]
    Report(#[from] serde_json::Error),
    #[error("nobody called the server")]
    Idle,
    #[error("the shim is stopping")]
    Stopping,
}

impl Supervisor {
    pub(super) fn new(config: Config, metrics: Arc<Metrics>) -> Arc<Self> {
        let message = "the server has not been started yet".to_owned();
        let status = ArcSwap::from_pointee(Status { epoch: 0, ready: None, idle: None, message });
        let (status_changed, room) = (Notify::new(), Semaphore::new(MAX_QUEUED_BYTES));
        Arc::new(Self { status, status_changed, activity: Activity::new(), room, metrics, config })
    }

    /// Returns the current status of the server.
    pub(super) fn status(&self) -> arc_swap::Guard<Arc<Status>> {
        self.status.load()
    }

    /// Announces a call. The server is not stopped until it is dropped, and is started if it was stopped because nobody called
    /// it; [`Self::started`] waits for that.
    pub(super) fn enter(&self) -> Needed {
        self.activity.enter()
    }

    /// Waits while the server is stopped because nobody called it, or starts after that. It may have failed then. Fails if there
    /// is no room for the `bytes` of a call that waits.
    pub(super) async fn started(&self, bytes: usize) -> Result<(), QueueError> {
        let mut room = None;
        loop {
            let changed = self.status_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.status().idle.is_none() {
                return Ok(());
            }
            if room.is_none() {
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                room = Some(self.room.try_acquire_many(bytes).map_err(|_| QueueError::Full)?);
            }
            changed.await;
        }
    }

    /// Runs the server, again and again, until `stop`. Returns when the last run has ended.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) -> std::io::Result<()> {
        let reaper = Reaper::start()?;
        let mut backoff = Backoff::default();
        let mut is_called = false;
        for epoch in 1.. {
            if is_called {
                // Calls wait, so nothing else has changed for them.
                self.metrics.wakes.inc();
            } else {
                self.set_unready(epoch, "the server is starting".to_owned());
                self.metrics.starts.inc();
            }
            let started = Instant::now();
            let end = self.run_once(epoch, &reaper, &stop).await;
            is_called = matches!(end, RunEnd::Idle);
            if is_called {
                backoff = Backoff::default();
                info!(epoch, "the server is stopped until the next call, because nobody called it");
                self.metrics.idle.set(1);
                let called = tokio::select! {
                    biased;
                    () = stop.cancelled() => false,
                    () = self.activity.called() => true,
                };
                self.metrics.idle.set(0);
                if called {
                    continue;
                }
                self.set_unready(epoch, RunEnd::Stopping.to_string());
                return Ok(());
            }
            self.set_unready(epoch, end.to_string());
            if matches!(end, RunEnd::Stopping) {
                return Ok(());
            }
            let pause = backoff.pause_after(started.elapsed());
            let error: &dyn std::error::Error = &end;
            warn!(epoch, error, again_in_ms = pause.as_millis(), "the server is not running");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
        }
        Ok(())
    }

    fn set_unready(&self, epoch: u64, message: String) {
        self.metrics.ready.set(0);
        self.set_status(Status { epoch, ready: None, idle: None, message });
    }

    /// Publishes that the server, which takes calls, is stopped until the next one.
    fn set_idle(&self, epoch: u64) {
        let idle = self.status().ready.as_ref().map(|ready| ready.report.clone());
        let message = "the server is stopped until it is called".to_owned();
        self.set_status(Status { epoch, ready: None, idle, message });
    }

    fn set_status(&self, status: Status) {
        self.status.store(Arc::new(status));
        self.status_changed.notify_waiters();
    }

    async fn run_once(&self, epoch: u64, reaper: &Reaper, stop: &CancellationToken) -> RunEnd {
        if let Some(endpoint) = &self.config.http {
            tokio::select! {
                biased;
                () = stop.cancelled() => return RunEnd::Stopping,
                address = http::address(endpoint) => if address.is_some() { return RunEnd::InUse(endpoint.port) },
            }
        }
        let Process { pid, mut monitor, mut ended, stdin, stdout, stderr } = match Process::start(&self.config, reaper)
        {
            Ok(process) => process,
            Err(error) => return RunEnd::Spawn(error),
        };
        let (client, lines) = RpcClient::new(Arc::clone(&self.metrics));
        let (mut connection, mut logs) = (JoinSet::new(), JoinSet::new());
        logs.spawn(pipes::log(Text::Stderr, stderr, Arc::clone(&self.metrics)));
        // The input of a server that serves HTTP stays open and empty until it ends: some end when it is closed.
        let mut input = None;
        if let Some(endpoint) = &self.config.http {
            input = Some(stdin);
            logs.spawn(pipes::log(Text::Stdout, stdout, Arc::clone(&self.metrics)));
            let serving = http::run(Arc::clone(&client), endpoint.clone(), lines);
            connection.spawn(async move { RunEnd::Http(serving.await) });
        } else {
            let (writing, reading) =
                (pipes::write(Arc::clone(&client), stdin, lines), pipes::read(Arc::clone(&client), stdout));
            connection.spawn(async move { RunEnd::Pipe(writing.await) });
            connection.spawn(async move { RunEnd::Pipe(reading.await) });
        }

        let end = tokio::select! {
            biased;
            status = &mut ended => exited(status.ok()),
            end = self.serve(epoch, &client) => end,
            error = monitor.failed() => RunEnd::Monitor(error),
            Some(end) = connection.join_next() => end.unwrap_or(RunEnd::Pipe(PipeEnd::Closed)),
            () = stop.cancelled() => RunEnd::Stopping,
        };
        let end = match end {
            RunEnd::Stopping => {
                // Until the server is ready, the only requests in flight are the shim's own.
                let was_ready = self.status().ready.is_some();
                self.set_unready(epoch, "the shim is stopping".to_owned());
                if was_ready {
                    tokio::select! {
                        _ = &mut ended => {}
                        () = drain(&client, self.config.drain_timeout) => {}
                    }
                }
                RunEnd::Stopping
            }
            // The pipes and ports of a server that dies are closed before its exit status is there, which says more.
            RunEnd::Pipe(PipeEnd::Closed)
            | RunEnd::Http(HttpEnd::NotListening | HttpEnd::StreamEnded)
            | RunEnd::Start(StartError::ServerEnded(_) | StartError::Lost { .. }) => {
                match timeout(Duration::from_millis(500), &mut ended).await {
                    Ok(status) => exited(status.ok()),
                    Err(_) => end,
                }
            }
            end => end,
        };
        if !matches!(end, RunEnd::Idle) && self.status().idle.is_some() {
            // Calls wait for the start, which has failed. The process may take long to end.
            self.set_unready(epoch, end.to_string());
        }
        client.close();
        while connection.join_next().await.is_some() {}
        let signal_first = input.take().is_some();
        let stopped = process::stop(pid, ended, &monitor, self.config.stop_grace, signal_first);
        tokio::pin!(stopped);
        tokio::select! {
            () = &mut stopped => {}
            () = stop.cancelled(), if matches!(end, RunEnd::Idle) => {
                self.set_unready(epoch, RunEnd::Stopping.to_string());
                stopped.await;
            }
        }
        // The last lines usually say what went wrong. All processes that could hold the pipes open are dead by now.
        let _ = timeout(Duration::from_secs(1), async { while logs.join_next().await.is_some() {} }).await;
        end
    }

    /// Starts to serve calls. Returns if the server does not start, or if nobody calls it any more.
    async fn serve(&self, epoch: u64, client: &Arc<RpcClient>) -> RunEnd {
        let limit = self.config.start_timeout;
        let report = match timeout(limit, start::start(client)).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => return error.into(),
            Err(_) => return RunEnd::StartTimeout { limit, phase: client.phase() },
        };
        if let Err(error) = self.set_ready(epoch, client, &report) {
            return error.into();
        }
        info!(epoch, tools = report.tools.len(), "the server takes calls");
        let idle = async {
            match self.config.idle_stop {
                Some(time) => self.activity.idle(time, || self.set_idle(epoch)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = idle => RunEnd::Idle,
            end = self.follow_tools(epoch, client, report) => end,
        }
    }

    /// Lists the tools again whenever the server says that it has others. Returns only if the report cannot be written.
    async fn follow_tools(&self, epoch: u64, client: &Arc<RpcClient>, mut report: ServerReport) -> RunEnd {
        let limit = self.config.start_timeout;
        loop {
            client.tools_changed().await;
            match timeout(limit, start::list_again(client, report.clone())).await {
                Ok(Ok(new)) => {
                    if let Err(error) = self.set_ready(epoch, client, &new) {
                        return error.into();
                    }
                    info!(epoch, tools = new.tools.len(), "the server has other tools");
                    report = new;
                }
                Ok(Err(error)) => warn!(epoch, error = &error as &dyn std::error::Error, "failed to list tools again"),
                Err(_) => warn!(epoch, "the server did not list its tools again in time"),
            }
            // Several notifications in the meantime are one.
            sleep(LIST_PAUSE).await;
        }
    }

    /// Publishes that the server takes calls, with its report.
    fn set_ready(&self, epoch: u64, client: &Arc<RpcClient>, report: &ServerReport) -> serde_json::Result<()> {
        let ready = Some(Ready { client: Arc::clone(client), report: serde_json::to_vec(report)?.into() });
        self.set_status(Status { epoch, ready, idle: None, message: String::new() });
        self.metrics.ready.set(1);
        Ok(())
    }
}

fn exited(status: Option<WaitStatus>) -> RunEnd {
    match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(code), _)) if code == i32::from(EXIT_NO_SANDBOX) => RunEnd::NoSandbox,
        Some((Some(code), _)) => RunEnd::Exited(format!("status {code}")),
        Some((None, Some(signal))) => RunEnd::Exited(format!("signal {signal}")),
        _ => RunEnd::Exited("an unknown status".to_owned()),
    }
}

/// Waits until no call is in flight, at most `limit`.
async fn drain(client: &RpcClient, limit: Duration) {
    let deadline = Instant::now() + limit;
    while client.in_flight() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
}
