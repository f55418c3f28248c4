//! Programs built from Go modules: Kubernetes, and the tools around it, each in one pinned version.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cache::{self, Key};
use super::{command, progress, repository};

/// Kubernetes version, as `tests/cluster/go.mod` pins it. The API server reports this version.
pub const KUBERNETES: &str = "v1.35.4";
const KIND: &str = "v0.33.0";
const LOCAL_PATH: &str = "v0.0.30";

/// File name of the binary that contains all Kubernetes programs.
pub const KUBERNETES_BINARY: &str = "k8s";
/// Names of the programs in [`KUBERNETES_BINARY`]: see `tests/cluster/k8s/main.go`.
pub const KUBERNETES_PROGRAMS: &[&str] =
    &["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// Builds etcd, kubectl and the Kubernetes programs. Returns their folder.
pub fn kubernetes() -> Result<PathBuf> {
    let folder = build_local(KUBERNETES_BINARY, &format!("Kubernetes {KUBERNETES}"), "5 min", &version_flags())?;
    for program in KUBERNETES_PROGRAMS {
        let link = folder.join(program);
        if !link.is_symlink() {
            symlink(KUBERNETES_BINARY, &link).with_context(|| format!("failed to link {}", link.display()))?;
        }
    }
    Ok(folder)
}

/// Returns linker flags that set the version that the programs report.
fn version_flags() -> String {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let version = "k8s.io/component-base/version";
    format!("-X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}")
}

/// Builds kubeadm, which a kind node runs. Returns its path, like the functions below.
pub fn kubeadm() -> Result<PathBuf> {
    let folder = build_local("kubeadm", &format!("kubeadm {KUBERNETES}"), "1 min", &version_flags())?;
    Ok(folder.join("kubeadm"))
}

/// Builds the provisioner of volumes that kind uses.
pub fn local_path_provisioner() -> Result<PathBuf> {
    build_public("local-path-provisioner", "github.com/rancher/local-path-provisioner", LOCAL_PATH, "30 s")
}

/// Returns an archive with the files of kind's own base image, from kind's Go module.
pub fn kind_base() -> Result<PathBuf> {
    let key = Key::default().text(KIND).finish();
    let folder = cache::folder("tools", "kind-base", &key, |folder| {
        let module = format!("sigs.k8s.io/kind@{KIND}");
        let description = command::output(go()?.args(["mod", "download", "-json", &module]))?;
        let description: serde_json::Value = serde_json::from_str(&description)?;
        let source = description["Dir"].as_str().context("`go mod download` printed no folder")?;
        let files = Path::new(source).join("images/base/files");
        let mut tar = Command::new("tar");
        // Files of modules are read-only.
        tar.args(["--owner=0", "--group=0", "--mode=u+w,a+rX", "--create", "--file"]);
        tar.arg(folder.join("kind-base.tar")).arg("--directory").arg(files).args(["etc", "kind", "usr"]);
        command::run(&mut tar)
    })?;
    Ok(folder.join("kind-base.tar"))
}

/// Builds the NetworkPolicy enforcer.
pub fn netpol() -> Result<PathBuf> {
    Ok(build_local("netpol", "the NetworkPolicy enforcer", "30 s", "")?.join("netpol"))
}

/// Builds the program of the pause container.
pub fn pause() -> Result<PathBuf> {
    Ok(build_local("pause", "the pause program", "5 s", "")?.join("pause"))
}

/// Builds the program that the checks of the node run in pods.
pub fn probe() -> Result<PathBuf> {
    Ok(build_local("probe", "the probe program", "5 s", "")?.join("probe"))
}

/// Builds the checks of the node as one program.
pub fn node_tests() -> Result<PathBuf> {
    Ok(compile("./nodetest", "the checks of the node", "30 s", &["test", "-c"], "-s -w")?.join("nodetest"))
}

/// Builds CoreDNS with the plugins that a cluster needs.
pub fn coredns() -> Result<PathBuf> {
    Ok(build_local("coredns", "CoreDNS", "20 s", "")?.join("coredns"))
}

/// Builds a published program, which is named as the last part of its package. Returns its path. `name` names it in the cache.
pub fn published(name: &str, package: &str, version: &str) -> Result<PathBuf> {
    let folder = build_public(name, package, version, "30 s")?;
    Ok(folder.with_file_name(package.rsplit('/').next().unwrap_or(name)))
}

/// Returns helm: the one on PATH, or one built from its module, with the libraries of Kubernetes in `tests/cluster`.
pub fn helm() -> Result<PathBuf> {
    installed_or("helm", || Ok(compile("helm.sh/helm/v3/cmd/helm", "helm", "40 s", &["build"], "-s -w")?.join("helm")))
}

/// Returns kind: the one on PATH, or one built from its module.
pub fn kind() -> Result<PathBuf> {
    installed_or("kind", || build_public("kind", "sigs.k8s.io/kind", KIND, "30 s"))
}

fn installed_or(program: &str, build: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    if command::on_path(program) { Ok(PathBuf::from(program)) } else { build() }
}

/// Builds a package of the Go module `tests/cluster`. Returns the folder of the program.
fn build_local(package: &str, what: &str, usually: &str, flags: &str) -> Result<PathBuf> {
    compile(&format!("./{package}"), what, usually, &["build"], &format!("-s -w {flags}"))
}

/// Builds a package with the versions that the Go module `tests/cluster` pins, so that all programs share the libraries that were
/// compiled once. Returns the folder of the program, which has the last name of the package.
fn compile(package: &str, what: &str, usually: &str, how: &[&str], flags: &str) -> Result<PathBuf> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let module = repository().join("tests/cluster");
    let mut key = Key::default().text(flags).path(&module.join("go.mod"))?.path(&module.join("go.sum"))?;
    if let Some(folder) = package.strip_prefix("./") {
        key = key.path(&module.join(folder))?;
    }
    cache::folder("tools", name, &key.finish(), |folder| {
        progress::step(format!("building {what}"), usually, || {
            let mut build = go()?;
            build.current_dir(&module).args(how).args(["-ldflags", flags, "-o"]);
            build.arg(folder.join(name)).arg(package);
            command::run(&mut build)
        })
    })
}

/// Builds a program from a public Go module. Returns its path.
fn build_public(program: &str, module: &str, version: &str, usually: &str) -> Result<PathBuf> {
    let key = Key::default().text(module).text(version).finish();
    let folder = cache::folder("tools", program, &key, |folder| {
        progress::step(format!("building {program} {version}"), usually, || {
            let mut install = go()?;
            install.args(["install", "-ldflags", "-s -w"]).arg(format!("{module}@{version}"));
            install.env("GOBIN", folder);
            command::run(&mut install)
        })
    })?;
    Ok(folder.join(program))
}

/// Returns a command of the program `go` that builds static programs, because images built from scratch have no libraries. All
/// commands have the same flags, so that they share what was compiled once. No debug information is made, which takes a fifth of the
/// time of compiling and is not kept.
pub fn go() -> Result<Command> {
    let mut go = Command::new(program()?);
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "-trimpath -buildvcs=false -gcflags=all=-dwarf=false");
    Ok(go)
}

/// Returns the program `go`: the one on PATH, or the one in the folder that the official archive is unpacked to.
fn program() -> Result<PathBuf> {
    if command::on_path("go") {
        return Ok(PathBuf::from("go"));
    }
    let default = PathBuf::from("/usr/local/go/bin/go");
    if is_executable(&default) {
        return Ok(default);
    }
    bail!(
        "Go is not installed: there is no `go` on PATH or in /usr/local/go/bin. The programs of the local cluster are \
         built with it. Install Go 1.25 or newer as https://go.dev/doc/install describes, and try again"
    )
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file())
}
