//! The fleet's kill switch, which stops every tool call of every tenant. [`Switch`] is what its `ConfigMap` means, and the
//! control streams send what is [known](KnownSwitch) of it to the gateways.

mod known;
mod switch;

pub use known::{Known, KnownSwitch};
pub use switch::Switch;
