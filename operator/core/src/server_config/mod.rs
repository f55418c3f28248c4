//! The Secrets and `ConfigMap`s that a server's program is configured with: which its spec refers to, and what it may have of
//! them. Pure.
//!
//! A reference must not be a way to a Secret that its author may not read: a Secret counts only if it names the server with a
//! label, which only somebody who may write the Secret can set.

mod program;
mod references;
mod sources;

pub use program::{DEFAULT_VARIABLES, check_program, http_options};
pub use references::{Keys, Presence, References, Source};
pub use sources::{Found, PULL_SECRET_TYPE, Problem, check_count, check_environment, of_config_map, of_secret};
