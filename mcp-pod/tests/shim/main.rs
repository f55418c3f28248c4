//! The shim as a gateway sees it: the real binary, with a tool server that misbehaves on request.

#![allow(clippy::unwrap_used, clippy::panic)]
// Calls read better with `json!` in the argument list.
#![allow(clippy::needless_pass_by_value)]

mod calls;
mod http;
mod idle;
mod lifecycle;
mod processes;
mod support;
