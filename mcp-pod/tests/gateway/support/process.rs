//! A gateway in a process of its own, with a fake operator and a fake shim.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::operator::{LoopReports, start_operator};
use super::{Client, Pki, Shim, Token, policy};

/// A running gateway process, killed on drop.
pub(crate) struct ProcessGateway {
    pub(crate) pki: Arc<Pki>,
    pub(crate) shim: Arc<Shim>,
    operator: SocketAddr,
    pub(crate) address: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) audit: Lines,
    pub(crate) log: Lines,
    /// What the operator has received about refused loops.
    pub(crate) loops: LoopReports,
    child: Child,
}

/// How a gateway process is started.
pub(crate) struct Options<'a> {
    /// Additional arguments.
    pub(crate) arguments: &'a [&'a str],
    /// Value of `RUST_LOG`.
    pub(crate) log_level: &'a str,
    /// How long the gateway is the home of all principals without the operator.
    pub(crate) lease: Duration,
    /// Whether the test reads the log. Otherwise it blocks when the pipe is full.
    pub(crate) read_log: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { arguments: &[], log_level: "info", lease: Duration::from_secs(65), read_log: true }
    }
}

/// The lines of a pipe so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Collects the lines of a pipe on a thread, until it ends.
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let collected = lines.clone();
        std::thread::spawn(move || {
            BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| collected.0.lock().push(line));
        });
        lines
    }

    /// Returns the number of lines that contain this text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.0.lock().iter().filter(|line| line.contains(text)).count()
    }

    /// Returns the lines, parsed as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.0.lock().iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }
}

impl ProcessGateway {
    /// Starts a gateway with a changed default policy. Waits until it is ready.
    pub(crate) async fn start(options: &Options<'_>, change: impl FnOnce(&mut TenantPolicy)) -> Self {
        let pki = Arc::new(Pki::new());
        let shim = Arc::new(Shim::start(&pki).await);
        let mut policy = policy(&pki, shim.address);
        change(&mut policy);
        let operator = start_operator(pki.gateway_dir(), &policy, options.lease).await;
        Self::until_ready(pki, shim, operator, options, "pod-1").await
    }

    /// Starts another gateway of the same tenant, in the pod with this UID. Waits until it is ready.
    pub(crate) async fn beside(&self, options: &Options<'_>, pod_uid: &str) -> Self {
        let operator = (self.operator, Arc::clone(&self.loops));
        Self::until_ready(Arc::clone(&self.pki), Arc::clone(&self.shim), operator, options, pod_uid).await
    }

    async fn until_ready(
        pki: Arc<Pki>,
        shim: Arc<Shim>,
        operator: (SocketAddr, LoopReports),
        options: &Options<'_>,
        pod_uid: &str,
    ) -> Self {
        let gateway = Self::unready(pki, shim, operator, options, pod_uid);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if get(gateway.health, "/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return gateway;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the gateway did not become ready: {:?}", gateway.log.json());
    }

    fn unready(
        pki: Arc<Pki>,
        shim: Arc<Shim>,
        (operator, loops): (SocketAddr, LoopReports),
        options: &Options<'_>,
        pod_uid: &str,
    ) -> Self {
        let token = pki.gateway_dir().join(format!("token-{pod_uid}"));
        std::fs::write(&token, pod_uid).unwrap();
        let (address, health) = (free_address(), free_address());
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-pod"))
            .args(["gateway", "--listen", &address.to_string(), "--metrics-listen", &health.to_string()])
            .args(["--operator-address", &operator.to_string(), "--operator-name", "gateway.acme-mcp.svc"])
            .args(["--policy-dir", "/nonexistent", "--token-file"])
            .arg(&token)
            .arg("--tls-dir")
            .arg(pki.gateway_dir())
            .args(options.arguments)
            .env("RUST_LOG", options.log_level)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let audit = Lines::collect(child.stdout.take().unwrap());
        let log = if options.read_log { Lines::collect(child.stderr.take().unwrap()) } else { Lines::default() };
        Self { pki, shim, operator, address, health, audit, log, loops, child }
    }

    /// Connects a client with this token.
    pub(crate) async fn client(&self, token: Token) -> Client {
        Client::connect(self.address, &self.pki, Some(&self.pki.token(token))).await
    }

    /// Kills the gateway at once, as the kernel does when memory runs out.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends the gateway a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Returns whether the gateway still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Returns the largest resident set of the process so far, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Returns the value of a metric, given its name and labels.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = get(self.health, "/metrics").await.unwrap();
        let value = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
        text.lines().find_map(value).unwrap_or_else(|| panic!("no {series} in {text}"))
    }
}

impl Drop for ProcessGateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a loopback address with a free port.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Returns the whole HTTP answer to a GET request, or `None` without a connection or an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<String> {
    tokio::time::timeout(Duration::from_secs(5), try_get(address, path)).await.ok()?
}

async fn try_get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
