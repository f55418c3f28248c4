//! The control plane: arguments of etcd, the API server, the controller manager and the scheduler.

use std::net::TcpListener;
use std::path::Path;

use anyhow::Result;

use super::layout::{API_PORT, DOMAIN, Layout, NODE_ADDRESS, POD_CIDR, SERVICE_CIDR};
use super::pki::Pki;
use super::plan::{Condition, Plan, Unit};
use super::programs;

/// Ports of etcd and the API server.
struct Ports {
    etcd: u16,
    peers: u16,
    api: u16,
}

/// Returns the control plane of a full node, in start order.
pub fn units(layout: &Layout, programs: &Path) -> Vec<Unit> {
    let ports = Ports { etcd: 2379, peers: 2380, api: API_PORT };
    let key = |name: &str| layout.path_string(&format!("pki/{name}"));
    let node = [
        "--bind-address=0.0.0.0".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--kubelet-certificate-authority={}", key("ca.crt")),
        format!("--kubelet-client-certificate={}", key("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", key("apiserver-kubelet.key")),
    ];
    vec![
        etcd(layout, programs, &ports),
        api_server(layout, programs, &ports, &node),
        controller_manager(layout, programs).after(api_server_ready(layout, programs)),
        scheduler(layout, programs).after(api_server_ready(layout, programs)),
    ]
}

/// Returns the condition that the API server is ready and has created its built-in roles. Before that it denies
/// requests of the other components.
fn api_server_ready(layout: &Layout, programs: &Path) -> Condition {
    let kubeconfig = format!("--kubeconfig={}", layout.kubeconfig().display());
    let kubectl = programs.join("kubectl").display().to_string();
    Condition::Succeeds(vec![kubectl, kubeconfig, "get".to_owned(), "--raw=/readyz".to_owned()])
}

/// Returns a plan with only etcd and the API server, on free ports of the host's loopback. No controllers run, so
/// nothing creates ServiceAccounts, and the admission plugin that requires one for each pod is turned off.
pub fn api_server_only(layout: &Layout) -> Result<Plan> {
    programs::install_kubernetes(layout)?;
    let programs = programs::folder(layout);
    let ports = free_ports()?;
    let pki = Pki::create(&layout.path("pki"))?;
    pki.server("apiserver", &["localhost", "127.0.0.1"])?;
    pki.service_accounts()?;
    let server = format!("https://127.0.0.1:{}", ports.api);
    pki.kubeconfig(&layout.kubeconfig(), &server, "admin", "system:masters")?;
    let loopback = [
        "--bind-address=127.0.0.1".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // No pods run here, so none needs an address of the API server.
        "--endpoint-reconciler-type=none".to_owned(),
    ];
    let units = vec![etcd(layout, &programs, &ports), api_server(layout, &programs, &ports, &loopback)];
    Ok(Plan { own_network: false, api_port: ports.api, setup: Vec::new(), units })
}

/// Returns ports that were free a moment ago. All listeners are open at the same time, so the ports differ.
fn free_ports() -> Result<Ports> {
    let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        *port = listener?.local_addr()?.port();
    }
    let [etcd, peers, api] = ports;
    Ok(Ports { etcd, peers, api })
}

fn etcd(layout: &Layout, programs: &Path, ports: &Ports) -> Unit {
    let clients = format!("http://127.0.0.1:{}", ports.etcd);
    let peers = format!("http://127.0.0.1:{}", ports.peers);
    let arguments = [
        format!("--data-dir={}", layout.path_string("etcd")),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--log-level=warn".to_owned(),
        // The data need not survive a reboot, so waiting for the disk has no benefit.
        "--unsafe-no-fsync".to_owned(),
    ];
    Unit::new(programs, "etcd", arguments)
}

fn api_server(layout: &Layout, programs: &Path, ports: &Ports, extra: &[String]) -> Unit {
    let key = |name: &str| layout.path_string(&format!("pki/{name}"));
    let arguments = [
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        format!("--secure-port={}", ports.api),
        // The API server refuses a loopback address here, even where nothing uses it.
        format!("--advertise-address={NODE_ADDRESS}"),
        "--allow-privileged=true".to_owned(),
        format!("--client-ca-file={}", key("ca.crt")),
        format!("--tls-cert-file={}", key("apiserver.crt")),
        format!("--tls-private-key-file={}", key("apiserver.key")),
        format!("--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"),
        format!("--service-account-key-file={}", key("sa.pub")),
        format!("--service-account-signing-key-file={}", key("sa.key")),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        "--profiling=false".to_owned(),
    ];
    let arguments = arguments.into_iter().chain(extra.iter().cloned());
    Unit::new(programs, "kube-apiserver", arguments).after(Condition::Open(format!("127.0.0.1:{}", ports.etcd)))
}

fn controller_manager(layout: &Layout, programs: &Path) -> Unit {
    let key = |name: &str| layout.path_string(&format!("pki/{name}"));
    let arguments = [
        format!("--root-ca-file={}", key("ca.crt")),
        format!("--service-account-private-key-file={}", key("sa.key")),
        format!("--cluster-signing-cert-file={}", key("ca.crt")),
        format!("--cluster-signing-key-file={}", key("ca.key")),
        format!("--flex-volume-plugin-dir={}", layout.path_string("volume-plugins")),
        "--use-service-account-credentials=true".to_owned(),
        // At start, each controller fetches its own token. At the default rate limit, that alone takes four seconds.
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=300".to_owned(),
        "--allocate-node-cidrs=true".to_owned(),
        format!("--cluster-cidr={POD_CIDR}"),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
    ];
    Unit::new(programs, "kube-controller-manager", single_instance(layout, "kube-controller-manager").chain(arguments))
}

fn scheduler(layout: &Layout, programs: &Path) -> Unit {
    Unit::new(programs, "kube-scheduler", single_instance(layout, "kube-scheduler"))
}

/// Returns the arguments that the controller manager and the scheduler share. One instance of each runs, so leader
/// election is off.
fn single_instance(layout: &Layout, name: &str) -> impl Iterator<Item = String> + use<> {
    [
        format!("--kubeconfig={}", layout.path_string(&format!("{name}.kubeconfig"))),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--profiling=false".to_owned(),
    ]
    .into_iter()
}
