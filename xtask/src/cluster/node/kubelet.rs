//! kubelet: its configuration and its unit.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::super::layout::{DNS_SERVICE, DOMAIN, Layout, NODE_ADDRESS};
use super::super::plan::Unit;
use super::disk;

/// Writes kubelet's configuration.
pub fn configure(layout: &Layout) -> Result<()> {
    let resolver = layout.path("resolv.conf");
    // Resolver configuration of the DNS pod itself. There is no upstream DNS server.
    fs::write(&resolver, "search .\n")?;
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.path("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.path("pki/kubelet.crt"),
        "tlsPrivateKeyFile": layout.path("pki/kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd_socket().display()),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DOMAIN,
        "resolvConf": resolver,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": layout.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        // kube-proxy uses nftables, and nothing here needs the iptables chains of kubelet.
        "makeIPTablesUtilChains": false,
        "podLogsDir": layout.path("pods-log"),
        "volumePluginDir": layout.path("volume-plugins"),
        "registerNode": true,
        "maxPods": 200,
        "eventRecordQPS": 0,
        "serializeImagePulls": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": disk::EVICTION,
            "nodefs.inodesFree": "1%",
            "imagefs.available": disk::EVICTION,
        },
    });
    fs::write(layout.path("kubelet.json"), serde_json::to_vec_pretty(&configuration)?)?;
    Ok(())
}

/// Returns the unit of kubelet.
pub fn unit(layout: &Layout, programs: &Path) -> Unit {
    let arguments = [
        format!("--config={}", layout.path_string("kubelet.json")),
        format!("--kubeconfig={}", layout.path_string("kubelet-client.kubeconfig")),
        format!("--root-dir={}", layout.path_string("kubelet")),
        format!("--hostname-override={}", layout.node()),
        format!("--node-ip={NODE_ADDRESS}"),
    ];
    Unit::new(programs, "kubelet", arguments)
}
