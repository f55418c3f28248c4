//! The code in `src/generated` is what the protos say. It is in the repository, because otherwise each build of the product
//! would first build the generator and what it depends on. protox parses the protos, so `protoc` does not have to be
//! installed.

use std::fs;
use std::path::Path;

#[test]
fn the_generated_code_is_what_the_protos_say() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a folder");
    let descriptors =
        protox::compile(["control.proto", "policy.proto"], [package.join("proto")]).expect("valid protos");
    // Without transport: the constructor that it would add to the client, `connect`, clashes with the RPC `Connect`.
    // Gateways build their own channel anyway.
    let configuration = tonic_prost_build::configure().build_transport(false).out_dir(out.path());
    configuration.compile_fds(descriptors).expect("generated code");

    let generated = fs::read_to_string(out.path().join("mcpfleet.control.v1.rs")).expect("one file");
    let kept = package.join("src/generated/mcpfleet.control.v1.rs");
    if fs::read_to_string(&kept).ok().as_ref() != Some(&generated) {
        fs::write(&kept, generated).expect("a file of this repository");
        panic!("{} was not what the protos say. It is now: commit it", kept.display());
    }
}
