//! `mcp-pod`: the data plane in one static binary.

fn main() {}
