//! The processes of a run, and their shared setup.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mcp_fleet_control::{encode, snapshot};
use mcp_fleet_policy::model::TenantPolicy;
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::load::Target;
use crate::process::Process;
use crate::role::Fronts;
use crate::setup::{Addresses, NAME, Operator, PRICE, Pki, SigningKey, client_tls, tenant};

/// How long a gateway may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// All processes of a run.
#[derive(Debug)]
pub(crate) struct Testbed {
    mcp_pod: PathBuf,
    dir: TempDir,
    pki: Pki,
    client_tls: Arc<ClientConfig>,
    token: String,
    addresses: Addresses,
    fronts: Fronts,
    /// The tool server.
    pub(crate) upstream: Process,
    /// The proxy that forwards everything unchecked.
    pub(crate) pass_through: Process,
    /// The product's gateway.
    pub(crate) gateway: Gateway,
    /// The product's gateway code behind a listener without TLS.
    pub(crate) plain_gateway: Gateway,
    /// Number of calls made through the gateways.
    pub(crate) calls: u64,
}

/// A gateway and its operator.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// Process of the gateway.
    pub(crate) process: Process,
    /// Address for agents.
    pub(crate) address: SocketAddr,
    /// Address of the readiness endpoint, if the gateway has one.
    pub(crate) health: Option<SocketAddr>,
    operator: Operator,
}

impl Testbed {
    /// Starts all processes and waits until they are ready.
    pub(crate) async fn start(mcp_pod: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let pki = Pki::create(dir.path())?;
        let key = SigningKey::generate()?;
        let token = key.token()?;
        std::fs::write(dir.path().join("token"), "bench")?;
        let (upstream, addresses): (_, Addresses) = Process::role(&["upstream", "--tls", text(&pki.upstream)?])?;
        let (plain, mutual) = (addresses.plain.to_string(), addresses.mutual.to_string());
        let (pass_through, fronts) =
            Process::role(&["pass-through", "--tls", text(&pki.gateway)?, "--plain", &plain, "--mutual", &mutual])?;
        write_snapshot(&dir.path().join("policy"), &tenant(addresses.mutual, key.verification())?)?;
        write_snapshot(&dir.path().join("plain-policy"), &tenant(addresses.plain, key.verification())?)?;
        let plain_gateway =
            start_plain_gateway(dir.path(), &pki, &tenant(addresses.plain, key.verification())?).await?;
        let gateway = start_gateway(mcp_pod, dir.path(), &pki, &tenant(addresses.mutual, key.verification())?).await?;
        wait_ready(&gateway).await?;
        let client_tls = client_tls(&pki.gateway)?;
        Ok(Self {
            mcp_pod: mcp_pod.to_owned(),
            dir,
            pki,
            client_tls,
            token,
            addresses,
            fronts,
            upstream,
            pass_through,
            gateway,
            plain_gateway,
            calls: 0,
        })
    }

    /// Starts another gateway, for measurements that need a new one. Does not wait until it is ready.
    pub(crate) async fn new_gateway(&self) -> anyhow::Result<Gateway> {
        let policy = snapshot::read_policy(&read_snapshot(&self.dir.path().join("policy"))?)?.policy;
        start_gateway(&self.mcp_pod, self.dir.path(), &self.pki, &policy).await
    }

    /// Returns the tool server as target of direct calls.
    pub(crate) fn direct(&self, tls: bool) -> Target {
        self.target(if tls { self.addresses.tls } else { self.addresses.plain }, tls)
    }

    /// Returns the pass-through proxy as target.
    pub(crate) fn through_proxy(&self, tls: bool) -> Target {
        self.target(if tls { self.fronts.tls } else { self.fronts.plain }, tls)
    }

    /// Returns an address as target, with the token of the principal.
    pub(crate) fn target(&self, address: SocketAddr, tls: bool) -> Target {
        Target { address, tls: tls.then(|| self.client_tls.clone()), token: self.token.clone() }
    }

    /// Returns the price of all calls, and the money that the gateways reported as spent. Waits up to 5 s until they
    /// are equal.
    pub(crate) async fn settled(&self) -> (u64, u64) {
        let made = self.calls * PRICE;
        let spent = || self.gateway.operator.spent() + self.plain_gateway.operator.spent();
        for _ in 0..50 {
            if spent() == made {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        (made, spent())
    }
}

/// Starts the product's gateway and its operator.
async fn start_gateway(mcp_pod: &Path, dir: &Path, pki: &Pki, policy: &TenantPolicy) -> anyhow::Result<Gateway> {
    let operator = Operator::start(&pki.gateway, policy).await?;
    let (address, health) = (free_address()?, free_address()?);
    let mut command = Command::new(mcp_pod);
    command.args(["gateway", "--operator-address", &operator.address.to_string(), "--operator-name", NAME]);
    command.arg("--tls-dir").arg(&pki.gateway).arg("--token-file").arg(dir.join("token"));
    command.arg("--policy-dir").arg(dir.join("policy"));
    command.args(["--listen", &address.to_string(), "--metrics-listen", &health.to_string()]);
    command.args(["--peer-listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "warn");
    let process = Process::quiet(&mut command)?;
    Ok(Gateway { process, address, health: Some(health), operator })
}

/// Starts the role [`crate::role::Role::PlainGateway`] and its operator.
async fn start_plain_gateway(dir: &Path, pki: &Pki, policy: &TenantPolicy) -> anyhow::Result<Gateway> {
    let operator = Operator::start(&pki.gateway, policy).await?;
    let address = operator.address.to_string();
    let (token, policy) = (dir.join("token"), dir.join("plain-policy"));
    let (process, address) = Process::role(&[
        "plain-gateway",
        "--tls-dir",
        text(&pki.gateway)?,
        "--operator-address",
        &address,
        "--operator-name",
        NAME,
        "--token-file",
        text(&token)?,
        "--policy-dir",
        text(&policy)?,
    ])?;
    Ok(Gateway { process, address, health: None, operator })
}

/// Waits until a gateway is ready.
pub(crate) async fn wait_ready(gateway: &Gateway) -> anyhow::Result<()> {
    let Some(health) = gateway.health else { return Ok(()) };
    let ready = async {
        while !super::ready::is_ready(health).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    match tokio::time::timeout(READY_TIMEOUT, ready).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("the gateway did not become ready within {READY_TIMEOUT:?}"),
    }
}

/// Writes a snapshot of the policy as files, as mounted Secrets provide it.
fn write_snapshot(dir: &Path, policy: &TenantPolicy) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, bytes) in snapshot::write_files(policy.generation, &encode(policy), None)? {
        std::fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}

/// Reads the files of a snapshot.
fn read_snapshot(dir: &Path) -> anyhow::Result<std::collections::BTreeMap<String, Vec<u8>>> {
    let mut files = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
    }
    Ok(files)
}

/// Returns an unused address on loopback.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not valid UTF-8", path.display()))
}
