//! Programs that are built from Go modules: Kubernetes and its neighbours, each in one pinned version.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cache::{self, Key};
use super::{command, progress, repository};

/// The Kubernetes version that `tests/cluster/go.mod` pins; the server reports it.
pub const KUBERNETES: &str = "v1.35.4";
const COREDNS: &str = "v1.15.0";
const HELM: &str = "v3.22.0";
const KIND: &str = "v0.33.0";

/// The file's name of the one binary of Kubernetes.
pub const KUBERNETES_BINARY: &str = "k8s";
/// The names under which it is called, see `tests/cluster/k8s/main.go`.
pub const KUBERNETES_PROGRAMS: &[&str] =
    &["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// The folder with etcd, kubectl and the programs of Kubernetes.
pub fn kubernetes() -> Result<PathBuf> {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let version = "k8s.io/component-base/version";
    let flags = format!("-X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}");
    let folder = ours(KUBERNETES_BINARY, &format!("Kubernetes {KUBERNETES}"), "5 min", &flags)?;
    for program in KUBERNETES_PROGRAMS {
        let link = folder.join(program);
        if !link.is_symlink() {
            symlink(KUBERNETES_BINARY, &link).with_context(|| format!("failed to link {}", link.display()))?;
        }
    }
    Ok(folder)
}

/// The NetworkPolicy enforcer.
pub fn netpol() -> Result<PathBuf> {
    Ok(ours("netpol", "the NetworkPolicy enforcer", "30 s", "")?.join("netpol"))
}

/// The program of the pause container.
pub fn pause() -> Result<PathBuf> {
    Ok(ours("pause", "the pause program", "5 s", "")?.join("pause"))
}

/// The program that the node's tests run in pods.
pub fn probe() -> Result<PathBuf> {
    Ok(ours("probe", "the probe program", "5 s", "")?.join("probe"))
}

/// The node's tests, as one program.
pub fn node_tests() -> Result<PathBuf> {
    Ok(compile("nodetest", "the node's tests", "30 s", &["test", "-c"], "-s -w")?.join("nodetest"))
}

/// `CoreDNS`.
pub fn coredns() -> Result<PathBuf> {
    theirs("coredns", "github.com/coredns/coredns", COREDNS, "2 min")
}

/// Helm: the machine's own, or one built from its module.
pub fn helm() -> Result<PathBuf> {
    own_or("helm", "helm.sh/helm/v3/cmd/helm", HELM, "1 min")
}

/// kind: the machine's own, or one built from its module.
pub fn kind() -> Result<PathBuf> {
    own_or("kind", "sigs.k8s.io/kind", KIND, "30 s")
}

fn own_or(program: &str, module: &str, version: &str, usually: &str) -> Result<PathBuf> {
    if command::on_path(program) { Ok(PathBuf::from(program)) } else { theirs(program, module, version, usually) }
}

/// Builds a program of our own Go module `tests/cluster`; returns its folder.
fn ours(package: &str, what: &str, usually: &str, flags: &str) -> Result<PathBuf> {
    compile(package, what, usually, &["build"], &format!("-s -w {flags}"))
}

fn compile(package: &str, what: &str, usually: &str, how: &[&str], flags: &str) -> Result<PathBuf> {
    let module = repository().join("tests/cluster");
    let key = Key::default()
        .text(flags)
        .path(&module.join("go.mod"))?
        .path(&module.join("go.sum"))?
        .path(&module.join(package))?
        .finish();
    cache::folder("tools", package, &key, |folder| {
        progress::step(format!("building {what}"), usually, || {
            let mut build = go()?;
            build.current_dir(&module).args(how).args(["-trimpath", "-buildvcs=false", "-ldflags", flags, "-o"]);
            build.arg(folder.join(package)).arg(format!("./{package}"));
            command::run(&mut build)
        })
    })
}

/// Builds a published program; returns its path.
fn theirs(program: &str, module: &str, version: &str, usually: &str) -> Result<PathBuf> {
    let key = Key::default().text(module).text(version).finish();
    let folder = cache::folder("tools", program, &key, |folder| {
        progress::step(format!("building {program} {version}"), usually, || {
            let mut install = go()?;
            install.args(["install", "-trimpath", "-ldflags", "-s -w"]).arg(format!("{module}@{version}"));
            install.env("GOBIN", folder);
            command::run(&mut install)
        })
    })?;
    Ok(folder.join(program))
}

fn go() -> Result<Command> {
    let mut program = PathBuf::from("go");
    if !command::on_path("go") {
        program = PathBuf::from("/usr/local/go/bin/go");
        if !is_executable(&program) {
            bail!("Go 1.25 or newer is needed to build the local cluster's programs: see https://go.dev/dl");
        }
    }
    let mut go = Command::new(program);
    // Static binaries run in images made from scratch.
    go.env("CGO_ENABLED", "0").env_remove("GOFLAGS");
    Ok(go)
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file())
}
