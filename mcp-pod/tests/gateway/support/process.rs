//! A gateway in a process of its own, with a fake operator and a fake shim.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::operator::{Operator, start_operator};
use super::{Client, PATIENCE, Pki, Shim, Token, policy, until};

/// A running gateway process, killed on drop.
pub(crate) struct ProcessGateway {
    pub(crate) pki: Arc<Pki>,
    pub(crate) shim: Arc<Shim>,
    pub(crate) operator: Operator,
    pub(crate) address: SocketAddr,
    /// Where it accepts forwarded requests.
    pub(crate) peer_address: SocketAddr,
    pub(crate) pod_uid: String,
    pub(crate) health: SocketAddr,
    pub(crate) audit: Lines,
    pub(crate) log: Lines,
    child: Child,
    arguments: Vec<String>,
    log_level: String,
    _free: [FreeAddress; 3],
}

/// How a gateway process is started.
pub(crate) struct Options<'a> {
    /// Additional arguments.
    pub(crate) arguments: &'a [&'a str],
    /// Value of `RUST_LOG`.
    pub(crate) log_level: &'a str,
    /// How long the gateway is the home of all principals without the operator.
    pub(crate) lease: Duration,
    /// How many gateways share the principals.
    pub(crate) places: usize,
    /// Where the gateway accepts forwarded requests, if not at a free address.
    pub(crate) peer_listen: Option<SocketAddr>,
    /// Whether the test reads the log. Otherwise it blocks when the pipe is full.
    pub(crate) read_log: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            arguments: &[],
            log_level: "info",
            lease: Duration::from_secs(65),
            places: 1,
            peer_listen: None,
            read_log: true,
        }
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
        Self::start_with(options, pki, shim, &policy).await
    }

    /// Starts a gateway with this policy. Waits until it is ready.
    pub(crate) async fn start_with(
        options: &Options<'_>,
        pki: Arc<Pki>,
        shim: Arc<Shim>,
        policy: &TenantPolicy,
    ) -> Self {
        let operator = start_operator(pki.gateway_dir(), policy, options.lease, options.places).await;
        Self::until_ready(pki, shim, operator, options, "pod-1").await
    }

    /// Starts another gateway of the same tenant, in the pod with this UID. Waits until it is ready.
    pub(crate) async fn beside(&self, options: &Options<'_>, pod_uid: &str) -> Self {
        let (pki, shim) = (Arc::clone(&self.pki), Arc::clone(&self.shim));
        Self::until_ready(pki, shim, self.operator.clone(), options, pod_uid).await
    }

    async fn until_ready(
        pki: Arc<Pki>,
        shim: Arc<Shim>,
        operator: Operator,
        options: &Options<'_>,
        pod_uid: &str,
    ) -> Self {
        let token = pki.gateway_dir().join(format!("token-{pod_uid}"));
        std::fs::write(&token, pod_uid).unwrap();
        let free = [FreeAddress::new(), FreeAddress::new(), FreeAddress::new()];
        let [address, health, peer_address] = free.each_ref().map(FreeAddress::get);
        let peer_address = options.peer_listen.unwrap_or(peer_address);
        operator.peers.lock().insert(pod_uid.to_owned(), peer_address);
        let (listen, metrics, peers) = (address.to_string(), health.to_string(), peer_address.to_string());
        let name = operator.address.to_string();
        let tls = pki.gateway_dir().display().to_string();
        let token = token.display().to_string();
        let mut arguments = vec!["gateway", "--listen", &listen, "--metrics-listen", &metrics, "--tls-dir", &tls];
        arguments.extend(["--peer-listen", &peers]);
        arguments.extend(["--operator-address", &name, "--operator-name", "gateway.acme-mcp.svc"]);
        arguments.extend(["--policy-dir", "/nonexistent", "--token-file", &token]);
        arguments.extend(options.arguments);
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let log_level = options.log_level.to_owned();
        let mut child = spawn(&arguments, &log_level);
        let audit = Lines::collect(child.stdout.take().unwrap());
        let log = if options.read_log { Lines::collect(child.stderr.take().unwrap()) } else { Lines::default() };
        let gateway = Self {
            pki,
            shim,
            operator,
            address,
            peer_address,
            pod_uid: pod_uid.to_owned(),
            health,
            audit,
            log,
            child,
            arguments,
            log_level,
            _free: free,
        };
        gateway.wait_until_ready().await;
        gateway
    }

    async fn wait_until_ready(&self) {
        let started = Instant::now();
        while !get(self.health, "/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(started.elapsed() < PATIENCE, "the gateway did not become ready: {:?}", self.log.json());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the gateway and starts it again with the same addresses. Waits until it admits calls, which it does not before the
    /// lease of the killed one has ended.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.arguments, &self.log_level);
        self.audit = Lines::collect(self.child.stdout.take().unwrap());
        self.log = Lines::collect(self.child.stderr.take().unwrap());
        self.wait_until_ready().await;
        let mut client = self.client(Token::default()).await;
        until("the gateway is the home of its callers", async || {
            let answer = client.call("echo", json!({})).await.json();
            answer["result"]["_meta"]["mcp-fleet.dev/denial"]["reason"] != "home_undecided"
        })
        .await;
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
        self.memory("VmHWM:")
    }

    /// Returns the resident set of the process, in bytes.
    pub(crate) fn resident_memory(&self) -> usize {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        value.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
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

fn spawn(arguments: &[String], log_level: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-pod"));
    command.args(arguments).env("RUST_LOG", log_level);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A loopback address for a process that a test starts. As long as this socket has its port, the kernel gives it to nobody
/// else who asks for a free one. A listener can still be bound to it, because this socket does not listen (socket(7),
/// `SO_REUSEADDR`).
pub(crate) struct FreeAddress(TcpSocket);

impl FreeAddress {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn get(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// Returns the whole HTTP answer to a GET request, or `None` without a connection or an answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<String> {
    tokio::time::timeout(PATIENCE, try_get(address, path)).await.ok()?
}

async fn try_get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
