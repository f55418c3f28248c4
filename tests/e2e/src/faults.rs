//! Faults of a cluster: programs that are killed or frozen, and pods that are cut off from each other.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use rustix::process::{Pid, Signal, kill_process};

use crate::{OPERATOR, until};

/// Returns the name of the operator pod that is the leader.
pub async fn leader(client: &Client) -> String {
    let leases: Api<Lease> = Api::namespaced(client.clone(), OPERATOR);
    until("an operator to become leader", Duration::from_secs(60), || async {
        let holder = leases.get("mcp-fleet-operator").await?.spec.and_then(|spec| spec.holder_identity);
        Ok(holder.filter(|holder| !holder.is_empty()))
    })
    .await
    .unwrap()
}

/// Kills a program of the cluster. The supervisor of the cluster restarts it.
pub fn kill_program(unit: &str) {
    let cluster = std::env::var("MCP_FLEET_TEST_CLUSTER")
        .expect("MCP_FLEET_TEST_CLUSTER is not set: run these tests with `cargo xtask test e2e`");
    let status =
        Command::new("cargo").args(["xtask", "cluster", "restart", unit, "--name", &cluster]).status().unwrap();
    assert!(status.success());
}

/// Stops the process of an operator pod without ending it, until [`unfreeze`].
pub fn freeze(pod: &str) -> Pid {
    let process = process_of(pod);
    kill_process(process, Signal::STOP).unwrap();
    process
}

/// Lets a process go on.
pub fn unfreeze(process: Pid) {
    kill_process(process, Signal::CONT).unwrap();
}

/// Returns the process of an operator pod. Containers of the packaged node run on this machine, and the environment of
/// the operator contains the name of its pod.
fn process_of(pod: &str) -> Pid {
    let variable = format!("POD_NAME={pod}");
    let entries = std::fs::read_dir("/proc").unwrap();
    let id = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|id| {
            let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|found| found == variable.as_bytes())
        })
        .unwrap_or_else(|| panic!("no process of pod {pod}"));
    Pid::from_raw(id).unwrap()
}

/// The nftables table of [`Cut`], in the network namespace of the cluster.
const TABLE: &str = "mcp_fleet_cut";

/// Pods that are cut off from others, until this is dropped. The tests run in the network namespace of the cluster.
#[derive(Debug)]
pub struct Cut(());

impl Cut {
    /// Cuts an address off from all of `others`. Packets of open connections are lost as well.
    pub fn between(address: IpAddr, others: &[IpAddr]) -> Self {
        let rule = |from: IpAddr, to: IpAddr| format!("add rule inet {TABLE} cut ip saddr {from} ip daddr {to} drop");
        let rules = others.iter().flat_map(|other| [rule(address, *other), rule(*other, address)]);
        let rules = rules.collect::<Vec<_>>().join("\n");
        // The table of an earlier run may be left.
        nft(&format!(
            "add table inet {TABLE}\ndelete table inet {TABLE}\nadd table inet {TABLE}\n\
             add chain inet {TABLE} cut {{ type filter hook forward priority -300; }}\n{rules}"
        ));
        Self(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        nft(&format!("delete table inet {TABLE}"));
    }
}

fn nft(commands: &str) {
    let output = Command::new("nft").arg(commands).output().unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a name that no other test run uses.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis())
}
