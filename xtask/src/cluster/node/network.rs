//! Network of the node: its address, the bridge of the pods, Services and NetworkPolicies.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::super::layout::{Layout, NODE_ADDRESS, NODE_POD_CIDR, POD_CIDR};
use super::super::plan::Unit;

/// Folder of Debian's CNI plugins.
const DEBIAN_PLUGINS: &str = "/usr/lib/cni";
/// Program name of the NetworkPolicy enforcer.
const ENFORCER: &str = "netpol";
/// Name of the enforcer as a CNI plugin.
const ENFORCER_PLUGIN: &str = "mcp-fleet-fence";

/// Returns the commands that set up the network namespace. No argument may contain a space.
pub fn setup() -> Vec<String> {
    [
        "ip link set lo up",
        // The node's address needs its own device. Every kernel has bridges, and one without ports works.
        "ip link add node0 type bridge",
        &format!("ip address add {NODE_ADDRESS}/32 dev node0"),
        "ip link set node0 up",
        // Unassigned addresses, such as those of Services, need a route too, or kube-proxy's rules would never see
        // them.
        "ip route add default dev node0",
        "sysctl --quiet --write net.ipv4.ip_forward=1",
        // Traffic between pods on the same bridge must pass the rules of Services and NetworkPolicies.
        "sysctl --quiet --write net.bridge.bridge-nf-call-iptables=1",
        "sysctl --quiet --write net.bridge.bridge-nf-call-ip6tables=1",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Writes the CNI configuration and links the plugins that it names.
pub fn configure(layout: &Layout, programs: &Path) -> Result<()> {
    let (plugins, configurations) = (layout.path("cni/bin"), layout.path("cni/net.d"));
    fs::create_dir_all(&plugins)?;
    fs::create_dir_all(&configurations)?;
    for plugin in ["bridge", "host-local", "loopback"] {
        let link = plugins.join(plugin);
        symlink(Path::new(DEBIAN_PLUGINS).join(plugin), &link)
            .with_context(|| format!("failed to link {}", link.display()))?;
    }
    symlink(programs.join(ENFORCER), plugins.join(ENFORCER_PLUGIN))?;
    let configuration = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.path("cni/addresses"),
                    "ranges": [[{"subnet": NODE_POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            // Delays the start of a pod until its NetworkPolicies are in the kernel.
            {"type": ENFORCER_PLUGIN, "socket": layout.path("netpol.sock")},
        ],
    });
    fs::write(configurations.join("10-pods.conflist"), serde_json::to_vec_pretty(&configuration)?)?;
    Ok(())
}

/// Returns the unit of the NetworkPolicy enforcer.
pub fn enforcer(layout: &Layout, programs: &Path) -> Unit {
    let arguments = [
        format!("--kubeconfig={}", layout.path_string("netpol.kubeconfig")),
        format!("--pod-cidr={POD_CIDR}"),
        format!("--socket={}", layout.path_string("netpol.sock")),
    ];
    Unit::new(programs, ENFORCER, arguments)
}

/// Returns the unit of kube-proxy.
pub fn proxy(layout: &Layout, programs: &Path) -> Unit {
    let arguments = [
        format!("--kubeconfig={}", layout.path_string("kube-proxy.kubeconfig")),
        "--proxy-mode=nftables".to_owned(),
        format!("--cluster-cidr={POD_CIDR}"),
        format!("--hostname-override={}", layout.node()),
        // The size of the connection table is a setting of the whole machine, not of a network namespace.
        "--conntrack-max-per-core=0".to_owned(),
    ];
    Unit::new(programs, "kube-proxy", arguments)
}
