//! The processes of all tenants, kept as their objects say: one gateway for each tenant, one shim for each server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use mcp_fleet_core::local::{Identity, LocalOperator, Objects as TenantObjects, Ticket};
use mcp_fleet_core::private_files::create_folder;

use super::arguments::Arguments;
use super::enclosure::{Plan, command_line};
use super::objects::Objects;
use super::process::{Event, Process};
use super::server::{Launch, check_readable, launch};
use super::state::{State, write_private};

/// How long a gateway may take to end its calls and to report what they cost.
const GATEWAY_END: Duration = Duration::from_secs(10);
/// How long a shim may take to end its server.
const SHIM_END: Duration = Duration::from_secs(6);

/// All processes.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    /// By UID of the tenant.
    tenants: BTreeMap<String, Tenant>,
    /// Ports of gateways, by name of the tenant. They are kept for the next time.
    ports: BTreeMap<String, u16>,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    address: SocketAddr,
    metrics: SocketAddr,
    gateway: Option<(Process, Ticket)>,
    /// By UID of the server.
    servers: BTreeMap<String, Server>,
}

#[derive(Debug)]
struct Server {
    /// `NAMESPACE/NAME`.
    name: String,
    launch: Launch,
    address: SocketAddr,
    metrics: SocketAddr,
    process: Option<Process>,
}

/// What was seen at a look at all processes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What has ended since the last look, for people.
    pub(crate) ended: Vec<String>,
    /// Whether a server has another address now, which the policy has to say.
    pub(crate) has_moved: bool,
}

/// What the processes are started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'s> {
    pub(crate) state: &'s State,
    pub(crate) arguments: &'s Arguments,
    pub(crate) operator: &'s LocalOperator,
    /// The folder with the credentials, without links.
    pub(crate) credentials: &'s Path,
}

/// File with the ports of gateways.
const PORTS: &str = "ports.json";

impl Fleet {
    /// Reads the ports of the last time.
    pub(crate) fn open(state: &State) -> Self {
        let text = std::fs::read(state.path(PORTS)).unwrap_or_default();
        Self { ports: serde_json::from_slice(&text).unwrap_or_default(), tenants: BTreeMap::new() }
    }

    /// Returns the objects of each tenant with the addresses of its processes. Returns what keeps servers from running too.
    pub(crate) async fn arrange(
        &mut self,
        setting: Setting<'_>,
        objects: &Objects,
    ) -> anyhow::Result<(Vec<TenantObjects>, Vec<String>)> {
        let (mut arranged, mut problems) = (Vec::new(), Vec::new());
        let (mut claimed, mut uids) = (BTreeSet::new(), BTreeSet::new());
        for tenant in objects.tenants() {
            let (name, uid) = (tenant.metadata.name.clone(), tenant.metadata.uid.clone());
            let (name, uid) = (name.unwrap_or_default(), uid.unwrap_or_default());
            let (namespace, runtime) = (tenant.spec.namespace.name.clone(), tenant.runtime_namespace());
            if claimed.contains(&namespace) || claimed.contains(&runtime) {
                problems.push(format!(
                    "MCPTenant {name}: an older MCPTenant claims {namespace} or {runtime}; choose other namespaces"
                ));
                continue;
            }
            claimed.extend([namespace.clone(), runtime]);
            uids.insert(uid.clone());
            if !self.tenants.contains_key(&uid) {
                let address = self.gateway_address(setting, &name)?;
                let metrics = free_address()?;
                let known = Tenant { name: name.clone(), address, metrics, gateway: None, servers: BTreeMap::new() };
                self.tenants.insert(uid.clone(), known);
            }
            let Some(known) = self.tenants.get_mut(&uid) else { continue };
            let servers = objects.servers(&namespace);
            let mut addresses = BTreeMap::new();
            let mut running = BTreeMap::new();
            for server in &servers {
                let server_uid = server.metadata.uid.clone().unwrap_or_default();
                let server_name = format!("{namespace}/{}", server.metadata.name.as_deref().unwrap_or_default());
                let checked = launch(server, setting.arguments, objects.sources()).and_then(|launch| {
                    let private = [setting.state.root(), setting.credentials];
                    launch.as_ref().map_or(Ok(()), |launch| check_readable(launch, &private))?;
                    Ok(launch)
                });
                match checked {
                    Ok(Some(launch)) => drop(running.insert(server_uid, (server_name, launch))),
                    Ok(None) => {}
                    Err(error) => problems.push(format!("MCPServer {server_name}: {error:#}")),
                }
            }
            known.keep_servers(running).await?;
            addresses.extend(known.servers.iter().map(|(uid, server)| (uid.clone(), vec![server.address])));
            arranged.push(TenantObjects {
                url: format!("https://localhost:{}", known.address.port()),
                scopes: objects.scopes(&namespace),
                principals: objects.principals(&namespace),
                budgets: objects.budgets(&namespace),
                servers,
                tenant,
                addresses,
            });
        }
        let gone: Vec<String> = self.tenants.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in gone {
            if let Some(tenant) = self.tenants.remove(&uid) {
                setting.operator.remove(&uid);
                tenant.stop(setting.operator).await;
            }
        }
        setting.state.write(PORTS, &serde_json::to_vec(&self.ports)?)?;
        Ok((arranged, problems))
    }

    /// Starts what does not run.
    pub(crate) async fn look(&mut self, setting: Setting<'_>) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        for (uid, tenant) in &mut self.tenants {
            tenant.look_at_gateway(setting, uid, &mut seen).await?;
            tenant.look_at_servers(setting, uid, &mut seen)?;
        }
        Ok(seen)
    }

    /// Stops all processes: gateways first, so that no call is cut off.
    pub(crate) async fn stop(self, operator: &LocalOperator) {
        for (process, _) in self.tenants.values().filter_map(|tenant| tenant.gateway.as_ref()) {
            process.terminate();
        }
        for tenant in self.tenants.into_values() {
            tenant.stop(operator).await;
        }
    }

    /// Returns the addresses of a tenant's gateway: for agents, and for health and metrics.
    pub(crate) fn gateway(&self, tenant_uid: &str) -> Option<(SocketAddr, SocketAddr)> {
        self.tenants.get(tenant_uid).map(|tenant| (tenant.address, tenant.metrics))
    }

    /// Returns the servers that run, with the addresses of their health probes.
    pub(crate) fn servers(&self) -> Vec<(String, SocketAddr)> {
        let servers = self.tenants.values().flat_map(|tenant| tenant.servers.values());
        servers.map(|server| (server.name.clone(), server.metrics)).collect()
    }

    /// Chooses the port of a gateway: the one of the command line, that of the last time if it is free, or another.
    fn gateway_address(&mut self, setting: Setting<'_>, tenant: &str) -> anyhow::Result<SocketAddr> {
        let given = setting.arguments.ports.iter().find(|it| it.tenant.as_deref().is_none_or(|name| name == tenant));
        let address = if let Some(given) = given {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, given.port));
            TcpListener::bind(address)
                .with_context(|| format!("port {} for the tenant {tenant} is not free", given.port))?;
            address
        } else {
            let last = self.ports.get(tenant).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
            match last.filter(is_free) {
                Some(address) => address,
                None => free_address()?,
            }
        };
        self.ports.insert(tenant.to_owned(), address.port());
        Ok(address)
    }
}

impl Tenant {
    /// Stops the servers that do not run any more, or differently, and adds those that are to run.
    async fn keep_servers(&mut self, mut wanted: BTreeMap<String, (String, Launch)>) -> anyhow::Result<()> {
        let is_wanted = |uid: &String, launch: &Launch| wanted.get(uid).is_some_and(|(_, wanted)| wanted.is_as(launch));
        let others = self.servers.iter_mut().filter(|(uid, server)| !is_wanted(uid, &server.launch));
        let mut ending: Vec<Process> = others.filter_map(|(_, server)| server.process.take()).collect();
        // All at once: while this waits, nothing proves that policies are current.
        ending.iter().for_each(Process::terminate);
        for process in &mut ending {
            process.end(SHIM_END).await;
        }
        self.servers.retain(|uid, _| wanted.contains_key(uid));
        for (uid, server) in &mut self.servers {
            if let Some((_, launch)) = wanted.remove(uid) {
                server.launch = launch;
            }
        }
        for (uid, (name, launch)) in wanted {
            let (address, metrics) = (free_address()?, free_address()?);
            self.servers.insert(uid, Server { name, launch, address, metrics, process: None });
        }
        Ok(())
    }

    async fn look_at_gateway(&mut self, setting: Setting<'_>, uid: &str, seen: &mut Seen) -> anyhow::Result<()> {
        let event = self.gateway.as_mut().map(|(process, _)| process.look());
        match event {
            Some(Event::None) => return Ok(()),
            Some(Event::Ended(how)) => {
                seen.ended.push(format!("the gateway of the tenant {} has ended: {how}", self.name));
                if let Some((_, ticket)) = &self.gateway {
                    setting.operator.gateway_ended(&ticket.uid).await;
                }
                return Ok(());
            }
            None | Some(Event::Due) => {}
        }
        if !is_free(&self.metrics) {
            self.metrics = free_address()?;
        }
        let started = self.start_gateway(setting, uid)?;
        self.gateway = Some(match self.gateway.take() {
            Some((before, _)) => (started.0.after(&before), started.1),
            None => started,
        });
        Ok(())
    }

    fn start_gateway(&self, setting: Setting<'_>, uid: &str) -> anyhow::Result<(Process, Ticket)> {
        let Setting { state, operator, .. } = setting;
        let ticket = operator.admit_gateway(&self.name, uid)?;
        let folder = state.folder(&format!("run/{uid}"))?;
        write_identity(&folder.join("tls"), &operator.gateway_identity(uid)?)?;
        write_private(&folder.join("token"), ticket.token.as_bytes())?;
        let (control, name) = operator.control();
        let policy = operator.policy_folder(uid)?;
        let arguments = [
            "gateway".to_owned(),
            format!("--listen={}", self.address),
            // There is one gateway of a tenant at a time.
            "--peer-listen=127.0.0.1:0".to_owned(),
            format!("--metrics-listen={}", self.metrics),
            format!("--tls-dir={}", folder.join("tls").display()),
            format!("--token-file={}", folder.join("token").display()),
            format!("--policy-dir={}", policy.display()),
            format!("--operator-address={control}"),
            format!("--operator-name={name}"),
        ];
        let audit = state.append(&audit_file(&self.name))?;
        let log = format!("logs/gateway-{}.log", self.name);
        let log = (state.path(&log), state.append(&log)?);
        Ok((Process::start(mcp_pod::NAME, &arguments, audit.into(), log)?, ticket))
    }

    fn look_at_servers(&mut self, setting: Setting<'_>, uid: &str, seen: &mut Seen) -> anyhow::Result<()> {
        for (server_uid, server) in &mut self.servers {
            match server.process.as_mut().map(Process::look) {
                Some(Event::None) => continue,
                Some(Event::Ended(how)) => {
                    seen.ended.push(format!("MCPServer {} has ended: {how}", server.name));
                    continue;
                }
                None | Some(Event::Due) => {}
            }
            if !is_free(&server.address) || !is_free(&server.metrics) {
                (server.address, server.metrics) = (free_address()?, free_address()?);
                seen.has_moved = true;
            }
            let started = server.start(setting, uid, server_uid)?;
            server.process = Some(match server.process.take() {
                Some(before) => started.after(&before),
                None => started,
            });
        }
        Ok(())
    }

    async fn stop(mut self, operator: &LocalOperator) {
        if let Some((process, ticket)) = &mut self.gateway {
            process.terminate();
            process.end(GATEWAY_END).await;
            operator.gateway_ended(&ticket.uid).await;
        }
        for process in self.servers.values().filter_map(|server| server.process.as_ref()) {
            process.terminate();
        }
        for mut process in self.servers.into_values().filter_map(|server| server.process) {
            process.end(SHIM_END).await;
        }
    }
}

impl Server {
    fn start(&self, setting: Setting<'_>, tenant_uid: &str, uid: &str) -> anyhow::Result<Process> {
        let Setting { state, operator, .. } = setting;
        let folder = state.folder(&format!("run/{uid}"))?;
        write_identity(&folder.join("tls"), &operator.server_identity(tenant_uid, uid)?)?;
        let root = folder.join("root");
        create_folder(&root).with_context(|| format!("failed to create {}", root.display()))?;
        let workspace = match &self.launch.workspace {
            Some(inside) => Some((state.folder(&format!("workspaces/{}", self.name))?, inside.clone())),
            None => None,
        };
        let plan = Plan {
            root,
            readable: self.launch.readable.clone(),
            tls: folder.join("tls"),
            workspace,
            files: self.launch.files.clone(),
            scratch: self.launch.scratch.clone(),
            working_dir: self.launch.working_dir(),
            environment: self.launch.environment.clone(),
            shim: [
                format!("--gateway-identity={}", LocalOperator::gateway_name(tenant_uid)),
                format!("--listen={}", self.address),
                format!("--metrics-listen={}", self.metrics),
            ]
            .into_iter()
            .chain(self.launch.times())
            .chain(self.launch.http_options())
            .collect(),
            command: self.launch.command.clone(),
            only_check: false,
        };
        let log = format!("logs/server-{}.log", self.name.replace('/', "-"));
        let log = (state.path(&log), state.append(&log)?);
        let file = folder.join("plan.json");
        plan.write(&file)?;
        Process::start("mcp-fleet", &command_line(&file), Stdio::null(), log)
    }
}

/// Returns the name of the file with the audit lines of a tenant.
pub(crate) fn audit_file(tenant: &str) -> String {
    format!("audit/{tenant}.jsonl")
}

/// Writes certificate, key and authority as a mounted Secret has them.
fn write_identity(folder: &Path, identity: &Identity) -> anyhow::Result<()> {
    create_folder(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    let Identity { certificate, key, authority } = identity;
    for (name, text) in [("tls.key", key), ("ca.crt", authority), ("tls.crt", certificate)] {
        write_private(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Ports to choose from: below those that Linux gives to outgoing connections, which could take one before it is used.
const FREE_PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Number of ports that are tried.
const ATTEMPTS: usize = 1000;

/// Returns an address of this machine with a free port.
fn free_address() -> anyhow::Result<SocketAddr> {
    let mut addresses = std::iter::repeat_with(|| SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(FREE_PORTS))));
    let free = addresses.by_ref().take(ATTEMPTS).find(is_free);
    free.with_context(|| format!("failed to find a free port between {} and {}", FREE_PORTS.start, FREE_PORTS.end))
}

fn is_free(address: &SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}
