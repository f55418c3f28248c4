//! The part of the operator that needs no API server: how policies are compiled, money is accounted for, credentials are
//! made and control streams are served.
//!
//! [`policy`] compiles a tenant's objects into one policy, [`control_server`] pushes policies to gateways and answers their
//! requests for budget from the [`ledger`], and [`credentials`] issues keys, certificates and tokens. [`shared_state`] holds
//! what these parts share. What they need of their surroundings they name as traits: a [`Store`](ledger::Store) of
//! ledgers, and the [`Hub`](control_server::Hub) of control streams. The operator implements these with the API server;
//! [`local`] is the operator of a fleet on one machine, which implements them with files and processes.
//!
//! A crate of its own, so that `mcp-fleet try` is built without the client of the API server and the controllers.

pub mod audit;
pub mod control_server;
pub mod credentials;
pub mod error;
pub mod guard;
pub mod kill_switch;
pub mod labels;
pub mod ledger;
pub mod local;
pub mod metrics;
pub mod policy;
pub mod private_files;
pub mod progress;
pub mod public_name;
pub mod retry;
pub mod server_config;
pub mod shared_state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
