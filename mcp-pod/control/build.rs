//! Generates the wire types and the client and server of the control stream; protox parses the protos, so that no
//! `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["control.proto", "policy.proto"], ["proto"])?;
    // The RPC is called Connect, as the generated constructor of a client from an address would be; gateways bring
    // their own channel anyway.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
