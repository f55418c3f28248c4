//! Runs a shim with test certificates, and connects to it as its gateway.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mcp_pod::envelope::EPOCH_HEADER;
use mcp_pod::tls::{Identity, client_config, peer_name};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair, SanType,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// How long a test waits for something that has to happen. Only a hang takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const GATEWAY: &str = "spiffe://mcp-fleet.dev/tenant/t/gateway";
const SERVER: &str = "spiffe://mcp-fleet.dev/tenant/t/server/s";

/// A running shim. It is stopped, with all processes that it started, when dropped.
pub(crate) struct Shim {
    child: Child,
    pub(crate) calls: SocketAddr,
    health: SocketAddr,
    dir: tempfile::TempDir,
    log: Arc<Mutex<Vec<String>>>,
}

impl Shim {
    /// Starts the shim with the Python fixture as its server.
    pub(crate) fn start(mode: &str) -> Self {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/server.py");
        Self::start_with(&[], &["/usr/bin/python3", fixture, mode])
    }

    /// Starts the shim with extra flags and any server command.
    pub(crate) fn start_with(flags: &[&str], command: &[&str]) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["workspace", "shim", "gateway", "stranger"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let ca = ca();
        write_identity(&at("shim"), &ca, SERVER, &[Eku::ServerAuth]);
        write_identity(&at("gateway"), &ca, GATEWAY, &[Eku::ServerAuth, Eku::ClientAuth]);
        write_identity(&at("stranger"), &ca, "spiffe://mcp-fleet.dev/tenant/u/gateway", &[Eku::ClientAuth]);
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-pod"))
            .arg("shim")
            .arg(format!("--tls-dir={}", at("shim").display()))
            .arg(format!("--workspace={}", at("workspace").display()))
            .args(["--gateway-identity", GATEWAY, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"])
            .args(flags)
            .arg("--")
            .args(command)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let address = |name: &str| first["fields"][name].as_str().unwrap().parse().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&log);
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| copy.lock().unwrap().push(line)));
        Self { calls: address("calls"), health: address("health"), child, dir, log }
    }

    /// Waits until the server takes calls.
    pub(crate) fn ready(self) -> Self {
        self.wait_until("ready", |shim| shim.health("/readyz").0 == 200);
        self
    }

    pub(crate) fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does the same while other tasks of the test go on.
    pub(crate) async fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:?}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a call with header fields that override the defaults. The server works on it until [`Self::end_work`] is
    /// called with the same name. Returns once the server has begun.
    pub(crate) async fn begin_work(&self, header: Value, name: &str) -> JoinHandle<Vec<Value>> {
        let mut gateway = self.connect_as("gateway").await.unwrap();
        let path = self.workspace().join(name);
        let arguments = json!({"path": path});
        let call = tokio::spawn(async move { gateway.call(header, "hold", arguments).await });
        self.until("the server works", |_| path.with_extension("began").exists()).await;
        call
    }

    /// Starts a call that the server of [`crate::http`] works on. Returns once there is the file `began`.
    pub(crate) async fn begin_hold(&self, began: &Path) -> JoinHandle<Vec<Value>> {
        let mut gateway = self.connect_as("gateway").await.unwrap();
        let call = tokio::spawn(async move { gateway.call(json!({}), "hold", json!({})).await });
        self.until("the server works", |_| began.exists()).await;
        call
    }

    pub(crate) fn end_work(&self, name: &str) {
        std::fs::write(self.workspace().join(name), "").unwrap();
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Sends a GET request to the health listener and returns status and body.
    pub(crate) fn health(&self, path: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(self.health).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let status = response.split(' ').nth(1).unwrap().parse().unwrap();
        (status, response.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// Returns the value of a metric sample, or 0 if there is none.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let metrics = self.health("/metrics").1;
        metrics.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok()).unwrap_or(0.0)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM to the shim.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Returns the memory of the shim itself, without the pages of its program, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Connects with the certificate of `name`: `gateway`, or `stranger`, who has one of the same CA.
    pub(crate) async fn connect_as(&self, name: &str) -> std::io::Result<Connection> {
        let identity = Identity::load(&self.dir.path().join(name)).unwrap();
        let connector = TlsConnector::from(client_config(identity, SERVER).unwrap());
        let stream = connector.connect(peer_name(), tokio::net::TcpStream::connect(self.calls).await?).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        let driver = tokio::spawn(async move { connection.await.map_err(std::io::Error::other) });
        Ok(Connection { sender, driver })
    }

    /// Makes one call on a new connection and returns its events.
    pub(crate) async fn call(&self, name: &str, arguments: Value) -> Vec<Value> {
        self.call_with(json!({}), name, arguments).await
    }

    /// Makes one call with header fields that override the defaults.
    pub(crate) async fn call_with(&self, header: Value, name: &str, arguments: Value) -> Vec<Value> {
        let mut connection = self.connect_as("gateway").await.unwrap();
        connection.call(header, name, arguments).await
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let _ = self.child.wait();
        }
    }
}

/// A connection to the shim.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) driver: JoinHandle<std::io::Result<()>>,
}

impl Connection {
    pub(crate) async fn call(&mut self, header: Value, name: &str, arguments: Value) -> Vec<Value> {
        let (status, _, body) = self.post(envelope(header, name, arguments)).await.unwrap();
        assert_eq!(status, 200, "{body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) async fn post(&mut self, body: String) -> hyper::Result<(u16, u64, String)> {
        self.request("POST", "/v1/call", body).await
    }

    /// Returns status, epoch and body.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        body: String,
    ) -> hyper::Result<(u16, u64, String)> {
        let request = http::Request::builder().method(method).uri(path).header("host", "shim");
        let response = self.sender.send_request(request.body(Full::from(body)).unwrap()).await?;
        let status = response.status().as_u16();
        let epoch = response.headers()[EPOCH_HEADER].to_str().unwrap().parse().unwrap();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, epoch, String::from_utf8(body.to_vec()).unwrap()))
    }
}

/// Returns the two lines of a call. `header` overrides the defaults.
pub(crate) fn envelope(header: Value, name: &str, arguments: Value) -> String {
    let mut full = json!({
        "version": 1, "call": "01J", "principal": "p", "timeoutMs": 60_000, "maxResponse": 1_000_000, "progress": false,
    });
    full.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
    format!("{full}\n{}\n", json!({"name": name, "arguments": arguments}))
}

/// Returns the text of a call's result.
pub(crate) fn text(events: &[Value]) -> String {
    let [.., last] = events else { panic!("no event") };
    last["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{last}")).to_owned()
}

/// Returns the reason of a refused call, and whether the server may have seen the call.
pub(crate) fn refused(events: &[Value]) -> (String, bool) {
    let [only] = events else { panic!("{events:?}") };
    let refusal = &only["refused"];
    (refusal["reason"].as_str().unwrap_or_else(|| panic!("{only}")).to_owned(), refusal["forwarded"].as_bool().unwrap())
}

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn write_identity(dir: &Path, ca: &CertifiedIssuer<'static, KeyPair>, uri: &str, usages: &[Eku]) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = usages.to_vec();
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("tls.crt"), params.signed_by(&key, ca).unwrap().pem()).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
}
