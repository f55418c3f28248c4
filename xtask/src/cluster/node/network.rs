//! The node's network: its address, the pods' bridge, Services and NetworkPolicies.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::super::layout::{Layout, NODE_ADDRESS, NODE_POD_CIDR, POD_CIDR};
use super::super::plan::Unit;

/// Debian's folder of CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// The enforcer's program.
const ENFORCER: &str = "netpol";
/// Its name among the CNI plugins.
const FENCE: &str = "mcp-fleet-fence";

/// Commands that give the new network namespace its address, without spaces inside arguments.
pub fn setup() -> Vec<String> {
    [
        "ip link set lo up",
        // The node's address needs a device of its own. A bridge without ports is one that every kernel has.
        "ip link add node0 type bridge",
        &format!("ip address add {NODE_ADDRESS}/32 dev node0"),
        "ip link set node0 up",
        // Addresses that nobody has must have a route too, or kube-proxy's rules would never see them.
        "ip route add default dev node0",
        "sysctl --quiet --write net.ipv4.ip_forward=1",
        // Pods on one bridge are to meet the rules of Services and policies on their way to each other.
        "sysctl --quiet --write net.bridge.bridge-nf-call-iptables=1",
        "sysctl --quiet --write net.bridge.bridge-nf-call-ip6tables=1",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Writes the CNI configuration and gathers the plugins it names.
pub fn configure(layout: &Layout, programs: &Path) -> Result<()> {
    let (plugins, configurations) = (layout.path("cni/bin"), layout.path("cni/net.d"));
    fs::create_dir_all(&plugins)?;
    fs::create_dir_all(&configurations)?;
    for plugin in ["bridge", "host-local", "loopback"] {
        let link = plugins.join(plugin);
        symlink(Path::new(PLUGINS).join(plugin), &link)
            .with_context(|| format!("failed to link {}", link.display()))?;
    }
    symlink(programs.join(ENFORCER), plugins.join(FENCE))?;
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
            // Holds a pod's start until its policies are in the kernel.
            {"type": FENCE, "socket": layout.path("netpol.sock")},
        ],
    });
    fs::write(configurations.join("10-pods.conflist"), serde_json::to_vec_pretty(&configuration)?)?;
    Ok(())
}

/// The `NetworkPolicy` enforcer.
pub fn enforcer(layout: &Layout, programs: &Path) -> Unit {
    let arguments = [
        format!("--kubeconfig={}", layout.text("netpol.kubeconfig")),
        format!("--pod-cidr={POD_CIDR}"),
        format!("--socket={}", layout.text("netpol.sock")),
    ];
    Unit::new(programs, ENFORCER, arguments)
}

/// kube-proxy.
pub fn proxy(layout: &Layout, programs: &Path) -> Unit {
    let arguments = [
        format!("--kubeconfig={}", layout.text("kube-proxy.kubeconfig")),
        "--proxy-mode=nftables".to_owned(),
        format!("--cluster-cidr={POD_CIDR}"),
        format!("--hostname-override={}", layout.node()),
        // The size of the connection table belongs to the machine, not to a network namespace.
        "--conntrack-max-per-core=0".to_owned(),
    ];
    Unit::new(programs, "kube-proxy", arguments)
}
