//! The Secrets and `ConfigMap`s that a server's program is configured with. People make them in the tenant's namespace. What
//! the program needs of them is copied into the runtime namespace, to where pods can refer.

mod copies;
mod read;
#[cfg(test)]
mod tests;

pub(super) use copies::{Copied, apply, prune};
pub(super) use read::{read, rejection};
