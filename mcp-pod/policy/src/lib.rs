//! The decision engine of MCP Fleet.
//!
//! Everything here is a pure function of policy, governor state, call and time: no tokio, no Kubernetes, no clock
//! of its own. [`model`] is the policy of one tenant as plain data, the form that the operator compiles and the
//! gateway enforces; [`reason`] is the closed set of answers to «why».

pub mod authenticate;
pub mod budget;
pub mod class;
pub mod denial;
pub mod engine;
pub mod governor;
pub mod json;
pub mod list;
pub mod model;
mod period;
pub mod reason;
pub mod rules;
mod schema;
pub mod text;
pub mod tick;
pub mod units;

#[cfg(test)]
mod testing;
