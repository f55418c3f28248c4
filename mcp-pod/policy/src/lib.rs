//! The decision engine of MCP Fleet.
//!
//! Decisions are pure functions of the policy, the recorded usage, the call and the time: no tokio, no Kubernetes; the
//! caller passes the clock in. Start at [`model`], the policy of one tenant as plain data, and [`engine`], which
//! evaluates calls against it. [`reason`] is the closed set of reasons for refusals and failures.

pub mod authenticate;
pub mod breaker;
pub mod budget;
pub mod built_in;
pub mod class;
pub mod denial;
pub mod engine;
pub mod governor;
pub mod json;
pub mod kill_switch;
pub mod list;
pub mod loops;
pub mod model;
mod period;
pub mod price;
pub mod reason;
pub mod rules;
mod schema;
pub mod text;
pub mod tick;
pub mod units;
pub mod unreadable;

#[cfg(test)]
mod testing;
