//! Cluster DNS, with the labels that every distribution gives it, so that NetworkPolicies that select them work here.

/// Returns the manifests of the DNS server.
pub fn dns() -> Vec<u8> {
    concat!(include_str!("../../../../tests/cluster/manifests/coredns.yaml"), "\n---\n").into()
}
