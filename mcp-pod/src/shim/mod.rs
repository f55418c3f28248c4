//! The shim in front of a tool server.
