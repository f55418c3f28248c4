//! The packaged node: a complete Kubernetes in one set of namespaces, built from public Go modules and Debian packages.

mod addons;
mod containerd;
mod disk;
mod kubelet;
mod network;
mod volumes;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::layout::{API_PORT, API_SERVICE, DOMAIN, Layout, NODE_ADDRESS};
use super::pki::Pki;
use super::plan::Plan;
use super::{cgroups, control_plane, programs, ready};
use crate::image::{self, Builder};
use crate::tools::{command, debian};

/// Installs the programs and writes the configuration of a full node, and returns its plan.
pub fn prepare(layout: &Layout) -> Result<Plan> {
    disk::require(&layout.state)?;
    debian::require(debian::NODE)?;
    programs::install_kubernetes(layout)?;
    programs::install_netpol(layout)?;
    let programs = programs::folder(layout);
    cgroups::create(layout)?;
    certificates(layout)?;
    containerd::configure(layout)?;
    network::configure(layout, &programs)?;
    kubelet::configure(layout)?;
    volumes::create(layout)?;

    let mut units = vec![containerd::unit(layout)];
    units.extend(control_plane::units(layout, &programs));
    units.push(network::enforcer(layout, &programs));
    units.push(kubelet::unit(layout, &programs));
    units.push(network::proxy(layout, &programs));
    Ok(Plan { own_network: true, api_port: API_PORT, setup: setup(layout), units })
}

/// Loads the node's own images, installs DNS and volumes, and waits until pods can run. Needs a ready API server.
pub fn finish(layout: &Layout, kubectl: &dyn Fn() -> Result<Command>) -> Result<()> {
    import(layout, &image::build(&image::PAUSE, Builder::Buildah)?)?;
    import(layout, &image::build(&image::COREDNS, Builder::Buildah)?)?;
    let manifests = [addons::dns(), volumes::manifests(layout)?].concat();
    command::output_with_input(
        kubectl()?.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]),
        &manifests,
    )?;
    let node = format!("node/{}", layout.node());
    ready::kubectl_wait(&node, kubectl, &["wait", "--for=create", "--timeout=60s", &node])?;
    ready::kubectl_wait(&node, kubectl, &["wait", "--for=condition=Ready", "--timeout=60s", &node])?;
    ready::kubectl_wait(
        "cluster DNS",
        kubectl,
        &["--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s"],
    )
}

/// Loads an image archive into the node. Skips an image of this repository if its content is already loaded.
pub fn import(layout: &Layout, archive: &Path) -> Result<()> {
    let identity = image::identity(archive).map(|(name, key)| (layout.path("loaded").join(name), key));
    if let Some((loaded, key)) = &identity
        && fs::read_to_string(loaded).is_ok_and(|content| content == *key)
    {
        return Ok(());
    }
    let socket = layout.containerd_socket();
    ready::until("containerd", || Ok(socket.exists()))?;
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(&socket).args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
    command::run(&mut ctr).with_context(|| format!("failed to load {}", archive.display()))?;
    if let Some((loaded, key)) = &identity {
        fs::write(loaded, key)?;
    }
    Ok(())
}

fn certificates(layout: &Layout) -> Result<()> {
    let pki = Pki::create(&layout.path("pki"))?;
    let service = format!("kubernetes.default.svc.{DOMAIN}");
    pki.server(
        "apiserver",
        &[
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            &service,
            "localhost",
            API_SERVICE,
            NODE_ADDRESS,
            "127.0.0.1",
        ],
    )?;
    let node = layout.node();
    pki.server("kubelet", &[&node, NODE_ADDRESS])?;
    pki.client("apiserver-kubelet", "kube-apiserver", "system:masters")?;
    pki.service_accounts()?;

    let server = format!("https://{NODE_ADDRESS}:{API_PORT}");
    let user = format!("system:node:{node}");
    for (file, user, group) in [
        ("admin", "admin", "system:masters"),
        ("kube-controller-manager", "system:kube-controller-manager", "system:authenticated"),
        ("kube-scheduler", "system:kube-scheduler", "system:authenticated"),
        ("kube-proxy", "system:kube-proxy", "system:authenticated"),
        ("kubelet-client", user.as_str(), "system:nodes"),
        ("netpol", "mcp-fleet:netpol", "system:masters"),
    ] {
        pki.kubeconfig(&layout.path(&format!("{file}.kubeconfig")), &server, user, group)?;
    }
    Ok(())
}

/// Returns the commands that set up the namespaces: private mounts over the paths that programs write to without an
/// option to change them, and the network.
fn setup(layout: &Layout) -> Vec<Vec<String>> {
    let state = layout.state.display();
    let mut lines = vec![
        // Mounts of pod volumes propagate between kubelet and the containers, but never to the host.
        "mount --make-rshared /".to_owned(),
        // Container shims, runc and CNI keep sockets, state and network namespaces here.
        "mount -t tmpfs -o mode=755 tmpfs /run".to_owned(),
        // kubelet creates links to container logs here.
        "mount -t tmpfs -o mode=755 tmpfs /var/log".to_owned(),
        // kubelet (device plugins) and the CNI library (results) write to /var/lib, which also has the cluster's
        // folder.
        "mkdir /run/state".to_owned(),
        format!("mount --bind {state} /run/state"),
        "mount -t tmpfs -o mode=755 tmpfs /var/lib".to_owned(),
        format!("mkdir -p {state}"),
        format!("mount --bind /run/state {state}"),
        "umount /run/state".to_owned(),
    ];
    lines.extend(network::setup());
    lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}
