//! Generates the wire types and the client and server of the control stream. protox parses the protos, so `protoc` does
//! not have to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["control.proto", "policy.proto"], ["proto"])?;
    // Without transport: the constructor that it would add to the client, `connect`, clashes with the RPC `Connect`.
    // Gateways build their own channel anyway.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
