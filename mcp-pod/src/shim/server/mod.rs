//! Keeps the server running: starts it in its sandbox, takes it into service, and starts it anew when it ends.
//!
//! - [`link`]: requests and answers of one run; [`frame`] and [`message`]: what the server writes.
//! - [`pipes`]: the tasks that read and write; [`start`]: initialize and the list of tools.
//! - [`reaper`]: what happens to dead processes.
//!
//! A run has an epoch, counted from 1. Requests of a run that ended are answered so; they are never made again.

mod backoff;
mod frame;
pub(super) mod link;
mod message;
mod pipes;
mod reaper;
mod start;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics::Metrics;
use super::sandbox::EXIT_NO_SANDBOX;
use backoff::Backoff;
use link::Link;
use pipes::PipeEnd;
use reaper::{Reaper, sweep};

/// How the server is started.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) workspace: Option<PathBuf>,
    pub(super) private: Vec<PathBuf>,
    pub(super) command: Vec<OsString>,
    /// From exec to the end of the tool list.
    pub(super) start_timeout: Duration,
    /// What calls in flight get when the shim is told to end.
    pub(super) drain_timeout: Duration,
}

/// Where the server stands now.
#[derive(Debug)]
pub(super) struct Now {
    /// How often it was started.
    pub(super) epoch: u64,
    /// What takes calls, if anything does.
    pub(super) ready: Option<Ready>,
    /// Why nothing does, for people.
    pub(super) why: String,
}

/// A server in service.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) link: Arc<Link>,
    /// The [`crate::envelope::ServerReport`], serialized.
    pub(super) report: Bytes,
}

/// The server and what keeps it running.
#[derive(Debug)]
pub(super) struct Server {
    now: ArcSwap<Now>,
    metrics: Arc<Metrics>,
    spec: Spec,
}

/// The end of one run.
#[derive(Debug, thiserror::Error)]
enum RunEnd {
    #[error("failed to start the sandbox")]
    Spawn(#[source] std::io::Error),
    #[error("the sandbox could not be set up; the log says why")]
    NoSandbox,
    #[error("the server ended with {0}")]
    Exited(String),
    #[error("the server was stopped: {0}")]
    Pipe(PipeEnd),
    #[error("the server did not start within {} s", .0.as_secs())]
    StartTimeout(Duration),
    #[error(transparent)]
    Start(#[from] start::StartError),
    #[error("failed to write the report")]
    Report(#[from] serde_json::Error),
    #[error("the shim is stopping")]
    Stopping,
}

/// The process of one run.
struct Process {
    pid: Pid,
    ended: oneshot::Receiver<WaitStatus>,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Server {
    pub(super) fn new(spec: Spec, metrics: Arc<Metrics>) -> Arc<Self> {
        let now = Now { epoch: 0, ready: None, why: "the server has not been started yet".to_owned() };
        Arc::new(Self { now: ArcSwap::from_pointee(now), metrics, spec })
    }

    /// Where the server stands.
    pub(super) fn now(&self) -> arc_swap::Guard<Arc<Now>> {
        self.now.load()
    }

    /// Runs the server, again and again, until `stop`; returns when it has ended for good.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) -> std::io::Result<()> {
        let reaper = Reaper::start()?;
        let mut backoff = Backoff::default();
        for epoch in 1.. {
            self.become_unready(epoch, "the server is starting".to_owned());
            self.metrics.starts.inc();
            let started = Instant::now();
            let end = self.run_once(epoch, &reaper, &stop).await;
            self.become_unready(epoch, end.to_string());
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

    fn become_unready(&self, epoch: u64, why: String) {
        self.metrics.ready.set(0);
        self.now.store(Arc::new(Now { epoch, ready: None, why }));
    }

    async fn run_once(&self, epoch: u64, reaper: &Reaper, stop: &CancellationToken) -> RunEnd {
        let mut process = match self.spawn(reaper) {
            Ok(process) => process,
            Err(error) => return RunEnd::Spawn(error),
        };
        let (link, queue) = Link::new(Arc::clone(&self.metrics));
        let mut pipes = JoinSet::new();
        pipes.spawn(pipes::write(Arc::clone(&link), process.stdin, queue));
        pipes.spawn(pipes::read(Arc::clone(&link), process.stdout));
        let log = tokio::spawn(pipes::log(process.stderr, Arc::clone(&self.metrics)));

        let end = tokio::select! {
            biased;
            status = &mut process.ended => exited(status.ok()),
            end = self.serve(epoch, &link) => end,
            Some(end) = pipes.join_next() => RunEnd::Pipe(end.unwrap_or(PipeEnd::Closed)),
            () = stop.cancelled() => RunEnd::Stopping,
        };
        let end = match end {
            RunEnd::Stopping => {
                // Before it is in service, what is in flight is only our own.
                let in_service = self.now().ready.is_some();
                self.become_unready(epoch, "the shim is stopping".to_owned());
                if in_service {
                    tokio::select! {
                        _ = &mut process.ended => {}
                        () = drain(&link, self.spec.drain_timeout) => {}
                    }
                }
                RunEnd::Stopping
            }
            // A server that dies closes its pipes first: its status says more.
            RunEnd::Pipe(PipeEnd::Closed) | RunEnd::Start(start::StartError::Gone(_)) => {
                match timeout(Duration::from_millis(500), &mut process.ended).await {
                    Ok(status) => exited(status.ok()),
                    Err(_) => end,
                }
            }
            end => end,
        };
        link.close();
        while pipes.join_next().await.is_some() {}
        finish(process.pid, process.ended).await;
        // What it wrote last says most; whoever still holds the pipe is dead by now.
        let _ = timeout(Duration::from_secs(1), log).await;
        end
    }

    /// Takes the server into service, and stays.
    async fn serve(&self, epoch: u64, link: &Arc<Link>) -> RunEnd {
        let limit = self.spec.start_timeout;
        let report = match timeout(limit, start::start(link)).await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => return error.into(),
            Err(_) => return RunEnd::StartTimeout(limit),
        };
        let tools = report.tools.len();
        let report = match serde_json::to_vec(&report) {
            Ok(report) => report.into(),
            Err(error) => return error.into(),
        };
        let ready = Some(Ready { link: Arc::clone(link), report });
        self.now.store(Arc::new(Now { epoch, ready, why: String::new() }));
        self.metrics.ready.set(1);
        info!(epoch, tools, "the server takes calls");
        std::future::pending().await
    }

    fn spawn(&self, reaper: &Reaper) -> std::io::Result<Process> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("sandbox-exec");
        if let Some(workspace) = &self.spec.workspace {
            command.arg("--workspace").arg(workspace);
        }
        for private in &self.spec.private {
            command.arg("--private").arg(private);
        }
        command.arg("--").args(&self.spec.command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what it starts can be ended with it.
        let mut child = command.process_group(0).spawn()?;
        let missing = || std::io::Error::other("a pipe is missing");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(missing)?;
        let ended = reaper.watch(pid);
        Ok(Process {
            pid,
            ended,
            stdin: ChildStdin::from_std(child.stdin.take().ok_or_else(missing)?)?,
            stdout: ChildStdout::from_std(child.stdout.take().ok_or_else(missing)?)?,
            stderr: ChildStderr::from_std(child.stderr.take().ok_or_else(missing)?)?,
        })
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

/// Waits for calls in flight, as long as they may take.
async fn drain(link: &Link, limit: Duration) {
    let deadline = Instant::now() + limit;
    while link.in_flight() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the server: its input is closed already; then it is asked, then it is made to.
async fn finish(pid: Pid, mut ended: oneshot::Receiver<WaitStatus>) {
    let patience = Duration::from_secs(2);
    if !ended.is_terminated() && timeout_at(Instant::now() + patience, &mut ended).await.is_err() {
        // It may just have ended.
        let _ = kill_process_group(pid, Signal::TERM);
        let _ = timeout_at(Instant::now() + patience, &mut ended).await;
    }
    sweep(pid).await;
}
