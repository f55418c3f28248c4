//! A docker engine for tests: Debian's, with its own folders, processes and cgroups. Its supervisor stops it and everything
//! that runs in it, as the packaged node's does. It does not change the firewall of this machine, and an engine that the
//! machine itself has is not affected.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use super::plan::{Plan, Unit};
use super::{cgroups, lock, logs_hint, namespaces, ready, remove};
use crate::image;
use crate::tools::{command, debian, progress};

/// Folder of Debian's docker client. Another client may be first on PATH.
const DEBIAN: &str = "/usr/bin";
/// The network that kind uses, and the name of its bridge on this machine.
const NETWORK: (&str, &str) = ("kind", "fleet-kind0");
/// Bit of `CAP_SYS_RESOURCE` in a set of capabilities.
const SYS_RESOURCE: u64 = 1 << 24;

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    layout: Layout,
}

impl Engine {
    /// Starts an engine, which has the image that Containerfiles start from. Removes what an earlier one left behind.
    pub fn up(name: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("a docker engine for tests needs root");
        }
        debian::require(debian::DOCKER)?;
        Self::down(name)?;
        let engine = Self { layout: Layout::new(name)? };
        let _lock = lock(&engine.layout)?;
        progress::step("starting a docker engine", "3 s", || engine.start())
            .with_context(|| logs_hint(&engine.layout))?;
        image::import_into_docker(|| engine.docker())?;
        Ok(engine)
    }

    /// Stops an engine and removes everything of it, also after a crash. Does nothing if there is none.
    pub fn down(name: &str) -> Result<()> {
        let layout = Layout::new(name)?;
        let _lock = lock(&layout)?;
        remove(&layout)?;
        let (_, bridge) = NETWORK;
        // The bridge of containers is in the network of this machine, and outlives the engine.
        if fs::exists(format!("/sys/class/net/{bridge}"))? {
            command::run(Command::new("ip").args(["link", "delete", bridge]))?;
        }
        Ok(())
    }

    /// Returns a command that finds this engine instead of the machine's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", self.address()).env("PATH", format!("{}:{path}", self.layout.path_string("bin")));
        // Its containers cannot reach other machines, so builds use the network of this one.
        command.env(image::DOCKER_BUILD_ARGUMENTS, "--network=host");
        command
    }

    fn docker(&self) -> Command {
        self.command(self.layout.path("bin/docker"))
    }

    fn address(&self) -> String {
        format!("unix://{}", self.layout.path_string("docker.sock"))
    }

    fn start(&self) -> Result<()> {
        let layout = &self.layout;
        for folder in ["bin", "data", "log", "pid"] {
            fs::create_dir_all(layout.path(folder))
                .with_context(|| format!("failed to create {}", layout.state.display()))?;
        }
        symlink(format!("{DEBIAN}/docker"), layout.path("bin/docker"))?;
        let runtime = layout.path("bin/runc-limited");
        fs::write(&runtime, runtime_script(capabilities()?))?;
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755))?;
        cgroups::create(layout)?;
        let plan = self.plan();
        plan.write(layout)?;
        let mut child = namespaces::start(layout, &plan)?;
        ready::until("docker", || match child.try_wait()? {
            Some(status) => bail!("the supervisor of the engine exited ({status})"),
            None => Ok(command::run(self.docker().arg("info")).is_ok()),
        })?;
        let (network, bridge) = NETWORK;
        let bridge = format!("com.docker.network.bridge.name={bridge}");
        command::run(self.docker().args(["network", "create", "--driver=bridge", "--opt", &bridge, network]))
    }

    fn plan(&self) -> Plan {
        let layout = &self.layout;
        let arguments = [
            format!("--host={}", self.address()),
            format!("--data-root={}", layout.path_string("data")),
            "--exec-root=/run/docker".to_owned(),
            "--pidfile=/run/docker.pid".to_owned(),
            format!("--cgroup-parent={}", layout.cgroup()),
            format!("--add-runtime=limited={}", layout.path_string("bin/runc-limited")),
            "--default-runtime=limited".to_owned(),
            // Nothing of the machine's network changes, except for the bridge of kind's network.
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
            "--ip-forward=false".to_owned(),
            "--ip-masq=false".to_owned(),
        ];
        let command = std::iter::once("/usr/sbin/dockerd".to_owned()).chain(arguments).collect();
        let run = "mount -t tmpfs -o mode=755 tmpfs /run";
        Plan {
            own_network: false,
            api_port: 0,
            setup: vec![run.split(' ').map(str::to_owned).collect()],
            units: vec![Unit { name: "dockerd".to_owned(), command, wait_for: None }],
        }
    }
}

/// Returns the capabilities that a process of this machine can have.
fn capabilities() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("/proc has no capabilities")?;
    u64::from_str_radix(line.trim(), 16).context("the capabilities in /proc are not a number")
}

/// Returns a script that calls runc. docker gives privileged containers every capability that the kernel knows, and runc
/// fails if the machine lacks one; sandboxed machines lack `CAP_SYS_RESOURCE`.
fn runtime_script(capabilities: u64) -> String {
    if capabilities & SYS_RESOURCE != 0 {
        return "#!/bin/sh\nexec runc \"$@\"\n".to_owned();
    }
    r#"#!/bin/sh
set -eu
previous=
drop() { sed -i -e 's/"CAP_SYS_RESOURCE",//g' -e 's/,\?"CAP_SYS_RESOURCE"//g' "$1"; }
for argument; do
    case $previous in
    --bundle) drop "$argument/config.json" ;;
    --process) drop "$argument" ;;
    esac
    previous=$argument
done
exec runc "$@"
"#
    .to_owned()
}
