//! The processes of a run, and what they share.

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

/// How long a process may take to start.
const START: Duration = Duration::from_secs(10);

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Stage {
    mcp_pod: PathBuf,
    dir: TempDir,
    pki: Pki,
    client_tls: Arc<ClientConfig>,
    token: String,
    addresses: Addresses,
    fronts: Fronts,
    /// The tool server.
    pub(crate) upstream: Process,
    /// The proxy that looks at nothing.
    pub(crate) pass_through: Process,
    /// The product.
    pub(crate) gateway: Gateway,
    /// The product's own code behind a listener without TLS.
    pub(crate) plain_gateway: Gateway,
    /// Calls made through gateways of this stage.
    pub(crate) calls: u64,
}

/// A gateway and the operator that leads it.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The gateway.
    pub(crate) process: Process,
    /// Where agents connect.
    pub(crate) address: SocketAddr,
    /// Where it says that it is ready.
    pub(crate) health: Option<SocketAddr>,
    operator: Operator,
}

impl Stage {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn set(mcp_pod: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let pki = Pki::create(dir.path())?;
        let key = SigningKey::generate()?;
        let token = key.token()?;
        std::fs::write(dir.path().join("token"), "bench")?;
        let (upstream, addresses): (_, Addresses) = Process::role(&["upstream", "--tls", text(&pki.upstream)?])?;
        let (plain, mutual) = (addresses.plain.to_string(), addresses.mutual.to_string());
        let (pass_through, fronts) =
            Process::role(&["pass-through", "--tls", text(&pki.gateway)?, "--plain", &plain, "--mutual", &mutual])?;
        mount(&dir.path().join("policy"), &tenant(addresses.mutual, key.verification())?)?;
        mount(&dir.path().join("plain-policy"), &tenant(addresses.plain, key.verification())?)?;
        let plain_gateway = plain_gateway(dir.path(), &pki, &tenant(addresses.plain, key.verification())?).await?;
        let gateway = start(mcp_pod, dir.path(), &pki, &tenant(addresses.mutual, key.verification())?).await?;
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

    /// A second gateway like the first, for what is measured on a fresh one; not waited for.
    pub(crate) async fn fresh_gateway(&self) -> anyhow::Result<Gateway> {
        let policy = snapshot::join(&read(&self.dir.path().join("policy"))?)?.1;
        start(&self.mcp_pod, self.dir.path(), &self.pki, &policy).await
    }

    /// The tool server, reached directly.
    pub(crate) fn direct(&self, tls: bool) -> Target {
        self.target(if tls { self.addresses.tls } else { self.addresses.plain }, tls)
    }

    /// The proxy that looks at nothing.
    pub(crate) fn through(&self, tls: bool) -> Target {
        self.target(if tls { self.fronts.tls } else { self.fronts.plain }, tls)
    }

    /// An address with this stage's token.
    pub(crate) fn target(&self, address: SocketAddr, tls: bool) -> Target {
        Target { address, tls: tls.then(|| self.client_tls.clone()), token: self.token.clone() }
    }

    /// What the calls of this stage cost, and what its gateways reported as spent, once they have caught up.
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

/// Starts the product with an operator of its own.
async fn start(mcp_pod: &Path, dir: &Path, pki: &Pki, policy: &TenantPolicy) -> anyhow::Result<Gateway> {
    let operator = Operator::start(&pki.gateway, policy).await?;
    let (address, health) = (free()?, free()?);
    let mut command = Command::new(mcp_pod);
    command.args(["gateway", "--operator-address", &operator.address.to_string(), "--operator-name", NAME]);
    command.arg("--tls-dir").arg(&pki.gateway).arg("--token-file").arg(dir.join("token"));
    command.arg("--policy-dir").arg(dir.join("policy"));
    command.args(["--listen", &address.to_string(), "--metrics-listen", &health.to_string()]);
    command.env("RUST_LOG", "warn");
    let process = Process::quiet(&mut command)?;
    Ok(Gateway { process, address, health: Some(health), operator })
}

async fn plain_gateway(dir: &Path, pki: &Pki, policy: &TenantPolicy) -> anyhow::Result<Gateway> {
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

/// Waits until a gateway says that it is ready.
pub(crate) async fn wait_ready(gateway: &Gateway) -> anyhow::Result<()> {
    let Some(health) = gateway.health else { return Ok(()) };
    let ready = async {
        while !super::ready::is_ready(health).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    match tokio::time::timeout(START, ready).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("the gateway did not become ready"),
    }
}

/// Writes a snapshot as Secrets mount it.
fn mount(dir: &Path, policy: &TenantPolicy) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, bytes) in snapshot::split(policy.generation, &encode(policy), None)? {
        std::fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}

fn read(dir: &Path) -> anyhow::Result<std::collections::BTreeMap<String, Vec<u8>>> {
    let mut files = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
    }
    Ok(files)
}

/// An address on loopback that nobody listens on.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
