//! Real MCP servers, unmodified, in the sandbox and behind a gateway: `cargo xtask test servers`.
//!
//! `tests/servers/` has the servers: the objects that run each of them, and the calls of a session. A session is made with the server as
//! people run it today, and through a gateway; what comes back is compared field by field. These tests need Landlock and user
//! namespaces, as `mcp-fleet try` does.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod case;
mod client;
mod compare;
mod direct;
mod fleet;
mod http;
mod schema;
mod sse;

/// Makes a test of each server, which has the name of its folder.
macro_rules! servers {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            compare::session(&stringify!($name).replace('_', "-"));
        })*
    };
}

servers! { everything, everything_http, everything_sse, filesystem, git, go_memory, java_signer, memory, modern_http, modern_stdio, sequential_thinking, sqlite, time }

#[test]
fn every_server_has_a_test() {
    let entries = std::fs::read_dir(case::FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries.filter(|path| path.join("server.yaml").exists());
    let mut found: Vec<_> = folders.map(|path| path.file_name().unwrap().to_str().unwrap().replace('-', "_")).collect();
    found.sort();
    assert_eq!(found, NAMES);
}
