//! The shim as a gateway sees it: the real binary in front of a server that misbehaves on request.

#![allow(clippy::unwrap_used, clippy::panic)]
// A call reads better with its JSON in place.
#![allow(clippy::needless_pass_by_value)]

mod calls;
mod lifecycle;
mod support;
