//! `mcp-fleet try`: a fleet on one machine, without Kubernetes.
//!
//! It reads the same YAML as a cluster and admits it by the same definitions ([`manifest`], [`objects`]), has the operator's
//! own code compile policies and account for money ([`mcp_fleet_core::local`]), and runs the same gateway and shims as
//! processes of this machine ([`fleet`]). A shim and its server are in an [`enclosure`]. What a cluster keeps in etcd is in
//! a [`state`] folder. Start at [`run`].

mod arguments;
mod credentials;
pub(crate) mod enclosure;
mod fleet;
pub(crate) mod lifetime;
mod manifest;
mod objects;
mod preflight;
mod process;
mod ready;
mod report;
mod server;
mod sources;
mod state;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use mcp_fleet_admission::Admission;
use mcp_fleet_core::local::{LocalOperator, Objects as TenantObjects, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use credentials::Credentials;
use fleet::{Fleet, Seen, Setting, audit_file};
use manifest::{Contents, Problem, contents, parse};
use objects::Objects;
use state::State;

pub(crate) use arguments::Arguments;

/// How often files and processes are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often policies are compiled and proved to be current, if nothing changes.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);
/// File with the objects.
const OBJECTS: &str = "objects.json";

/// Runs the fleet until it is interrupted.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // The dependencies contain two TLS providers, so the one to use has to be set.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // One thread, because the kernel kills a child when the thread ends that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let folder = match &arguments.state {
        Some(folder) => folder.clone(),
        None => state::default_folder(&arguments.files)?,
    };
    let state = State::open(&folder)?;
    preflight::check(&state)?;
    let stop = CancellationToken::new();
    let operator = LocalOperator::start(&state.folder("operator")?, stop.clone()).await?;
    let own = state.path("credentials");
    let credentials = Credentials::new(arguments.credentials.as_ref().unwrap_or(&own))?;
    let credentials_folder = credentials.folder().to_owned();
    let setting = Setting { state: &state, arguments, operator: &operator, credentials: credentials_folder.as_path() };
    let mut trial = Trial::open(setting, credentials)?;
    println!("mcp-fleet try: {} on this machine, without Kubernetes.\n{}\n", trial.names(), report::MISSING);
    let ran = tokio::select! {
        ran = trial.run() => ran,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    println!("stopping");
    tokio::select! {
        () = trial.fleet.stop(&operator) => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    ran
}

/// A running fleet.
struct Trial<'t> {
    setting: Setting<'t>,
    admission: Admission,
    objects: Objects,
    fleet: Fleet,
    credentials: Credentials,
    tenants: Vec<TenantObjects>,
    /// Whether all files could be read and parsed when they were last applied.
    is_read: bool,
    /// What was printed as not in force, so that it is printed once.
    reported: BTreeSet<String>,
}

impl<'t> Trial<'t> {
    fn open(setting: Setting<'t>, credentials: Credentials) -> anyhow::Result<Self> {
        let state = setting.state;
        Ok(Self {
            setting,
            admission: Admission::new()?,
            objects: Objects::load(&state.path(OBJECTS))?,
            fleet: Fleet::open(state),
            credentials,
            tenants: Vec::new(),
            is_read: false,
            reported: BTreeSet::new(),
        })
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.setting.arguments.files.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    }

    /// Runs until it is dropped. Fails if it cannot start.
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut read = Instant::now();
        let mut applied = contents(&self.setting.arguments.files);
        let mut problems = self.apply(&applied, read).await?;
        problems.extend(self.check_names());
        if !problems.is_empty() {
            bail!("correct this first:\n{}", problems.join("\n"));
        }
        if self.tenants.is_empty() {
            bail!("there is no MCPTenant in {}", self.names());
        }
        self.publish(Some(read));
        self.keep_running().await?;
        self.introduce(&applied).await?;
        let mut found = applied.clone();
        let mut published = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            read = Instant::now();
            let before = std::mem::replace(&mut found, contents(&self.setting.arguments.files));
            // Editors replace a file by removing it, or write it in parts, so a change counts once it is seen twice.
            let changed = found != applied && found == before;
            if changed {
                for problem in self.apply(&found, read).await? {
                    println!("not applied: {problem}");
                }
                applied.clone_from(&found);
            }
            if changed || published.elapsed() >= PROOF_INTERVAL {
                // What cannot be read may have changed.
                let is_read = found == applied && self.is_read;
                self.publish(is_read.then_some(read));
                published = Instant::now();
            }
            self.keep_running().await?;
        }
    }

    /// Returns what is wrong with the names on the command line.
    fn check_names(&self) -> Vec<String> {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let servers = self.tenants.iter().flat_map(|objects| &objects.servers);
        let servers: Vec<_> =
            servers.map(|server| (name(&server.metadata.namespace), name(&server.metadata.name))).collect();
        let tenants: Vec<_> = self.tenants.iter().map(|objects| name(&objects.tenant.metadata.name)).collect();
        self.setting.arguments.check_names(&servers, &tenants)
    }

    /// Applies files. Returns what is wrong with them.
    async fn apply(&mut self, contents: &Contents, read: Instant) -> anyhow::Result<Vec<String>> {
        let applied = self.objects.apply(&self.admission, &parse(contents), Timestamp::now());
        let mut problems: Vec<String> = applied.problems.iter().map(Problem::to_string).collect();
        for change in &applied.changes {
            println!("{change}");
        }
        for (kind, count) in &applied.ignored {
            println!("ignored: {count} × {kind}, which only a cluster has");
        }
        self.setting.state.write(OBJECTS, &self.objects.to_text()?)?;
        let setting = self.setting;
        let (tenants, not_running) = self.fleet.arrange(setting, &self.objects).await?;
        problems.extend(not_running);
        for tenant in tenants.iter().map(|objects| &objects.tenant) {
            if let (Some(hostname), Some(name)) = (&tenant.spec.endpoint.hostname, &tenant.metadata.name) {
                println!("ignored: the public name {hostname} of the MCPTenant {name}, which only a cluster has");
            }
        }
        self.tenants = tenants;
        self.is_read = applied.is_read;
        self.setting.operator.set_kill_switch(applied.kill_switch.as_deref(), read);
        if let Some(reason) = &applied.kill_switch {
            println!("the kill switch is on: all tool calls are refused. Reason: {reason:?}");
        }
        self.credentials.recheck();
        Ok(problems)
    }

    /// Puts the policies in force, and says what is not in force as it is written. `read` is when all files were last read,
    /// as they are in force.
    fn publish(&mut self, read: Option<Instant>) {
        let mut reported = BTreeSet::new();
        for objects in &self.tenants {
            let tenant = objects.tenant.metadata.name.as_deref().unwrap_or_default();
            match self.setting.operator.publish(objects) {
                Ok(published) => {
                    // What is not published may be a suspension, and its absence must not be proved.
                    if let Some(read) = read {
                        self.setting.operator.prove(objects.tenant.metadata.uid.as_deref().unwrap_or_default(), read);
                    }
                    reported.extend(published.verdicts.iter().filter(|it| !it.is_in_force).map(not_in_force));
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    reported.insert(format!("the policy of the tenant {tenant} stays as it was: {error:#}"));
                }
            }
            let uid = objects.tenant.metadata.uid.as_deref().unwrap_or_default();
            reported.extend(self.setting.operator.problem(uid));
        }
        for line in reported.difference(&self.reported) {
            println!("{line}");
        }
        self.reported = reported;
    }

    /// Keeps credentials valid and processes running.
    async fn keep_running(&mut self) -> anyhow::Result<()> {
        self.credentials.keep(self.setting.operator, &self.tenants)?;
        let setting = self.setting;
        let Seen { ended, has_moved } = self.fleet.look(setting).await?;
        for ended in ended {
            println!("{ended}");
        }
        if has_moved {
            (self.tenants, _) = self.fleet.arrange(setting, &self.objects).await?;
        }
        Ok(())
    }

    /// Waits until everything runs, and says where everything is.
    async fn introduce(&mut self, applied: &Contents) -> anyhow::Result<()> {
        self.wait_until_ready(applied).await?;
        println!();
        for objects in &self.tenants {
            let metadata = &objects.tenant.metadata;
            let uid = metadata.uid.as_deref().unwrap_or_default();
            let name = metadata.name.as_deref().unwrap_or_default();
            let (_, metrics) = self.fleet.gateway(uid).context("a tenant has no gateway")?;
            println!("tenant {name}");
            for server in &objects.servers {
                println!("  server     {}/{}/mcp", objects.url, server.metadata.name.as_deref().unwrap_or_default());
            }
            for principal in &objects.principals {
                let metadata = &principal.metadata;
                let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or_default());
                let folder = self.credentials.of(namespace.unwrap_or_default(), name);
                println!("  principal  {name}: token, url and ca.crt are in {}", folder.display());
            }
            println!("  audit log  {}", self.setting.state.path(&audit_file(name)).display());
            println!("  metrics    http://{metrics}/metrics");
        }
        println!("money\n  metrics    http://{}/metrics", self.setting.operator.metrics());
        let example = self.tenants.iter().find_map(|objects| Some((objects, report::example(objects)?)));
        if let Some((objects, (principal, allowed, refused))) = example {
            let metadata = &principal.metadata;
            let name = metadata.name.as_deref().unwrap_or_default();
            let folder = self.credentials.of(metadata.namespace.as_deref().unwrap_or_default(), name);
            let line = |call| report::curl(&objects.url, &folder, call);
            println!(
                "\nA call that {name} may make:\n\n{}\n\nand one that is refused:\n\n{}",
                line(&allowed),
                line(&refused)
            );
        }
        println!("\nready. Edit the files, and the policy follows. Ctrl-C stops everything.");
        Ok(())
    }

    async fn wait_until_ready(&mut self, applied: &Contents) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut proved = started;
        loop {
            let mut waiting = Vec::new();
            for objects in &self.tenants {
                let metadata = &objects.tenant.metadata;
                let gateway = self.fleet.gateway(metadata.uid.as_deref().unwrap_or_default());
                if let Some((_, health)) = gateway
                    && !ready::is_ready(health).await
                {
                    waiting.push(format!("the gateway of the tenant {}", metadata.name.as_deref().unwrap_or_default()));
                }
            }
            for (name, health) in self.fleet.servers() {
                if !ready::is_ready(health).await {
                    waiting.push(format!("MCPServer {name}"));
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if started.elapsed() > ready::PATIENCE {
                println!("still starting: {}; see {}", waiting.join(", "), self.setting.state.path("logs").display());
                return Ok(());
            }
            if proved.elapsed() >= PROOF_INTERVAL {
                proved = Instant::now();
                // A change is applied afterwards, and until then what is in force may be out of date.
                let is_read = contents(&self.setting.arguments.files) == *applied;
                self.publish(is_read.then_some(proved));
            }
            self.keep_running().await?;
            tokio::time::sleep(ready::INTERVAL).await;
        }
    }
}

/// Says why an object is not in force, as its condition would in a cluster.
fn not_in_force(Verdict { kind, object, reason, message, .. }: &Verdict) -> String {
    format!("not in force: {kind} {object}: {reason}: {message}")
}
