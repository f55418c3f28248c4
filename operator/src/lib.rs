//! The operator of MCP Fleet: custom resources go in, isolated tenants come out.
//!
//! One folder per kind, each with the same five steps: dereference (reads), validate (parse once), desired (pure),
//! apply, status. Around them: [`leader`] decides which replica acts, [`ca`] and [`token`] make what is secret,
//! [`apply`] puts declared objects back as a whole, [`control`] is where compiler and controllers leave word.

pub mod apply;
pub mod budget;
pub mod ca;
pub mod compile;
pub mod config;
pub mod context;
pub mod control;
pub mod controller;
mod deadline;
pub mod error;
pub mod events;
pub mod health;
mod jitter;
pub mod labels;
pub mod latch;
pub mod leader;
pub mod ledger;
mod pod;
pub mod principal;
pub mod publish;
pub mod run;
pub mod scope;
pub mod server;
pub mod settings;
pub mod status;
pub mod stream;
pub mod telemetry;
pub mod tenant;
pub mod token;
pub mod verdict;
pub mod world;
