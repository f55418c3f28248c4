//! The shim in front of a tool server.
//!
//! - [`sandbox`]: the domain and the filter that the user's command runs in.

pub mod sandbox;
