//! The cluster's DNS, as a pod with the labels that every distribution gives it, so that policies written for them hold.

/// The manifests of the DNS server.
pub fn dns() -> Vec<u8> {
    concat!(include_str!("../../../../tests/cluster/manifests/coredns.yaml"), "\n---\n").into()
}
