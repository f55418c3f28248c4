//! The gateway of one tenant: the only way in for its agents. Every call passes through here.
//!
//! Start with [`pipeline`], which lists the stages of a request. In the order of a call's life:
//!
//! - [`connection`] accepts TLS connections and serves HTTP on them, on the threads of [`workers`].
//! - [`request`] authenticates the caller and reads one message from the HTTP request.
//! - [`methods`] does what each MCP method asks; [`call`] is `tools/call`, from authorisation to settlement.
//! - [`upstream`] talks to the tool servers' shims; [`respond`] writes the answers.
//! - [`audit`] and [`metrics`] record what happened, [`trace`] in which trace. [`memory`] bounds what clients and their calls may use.
//!
//! [`state`] is what all connections share, [`policy`] one generation of the tenant's policy prepared for calls,
//! [`budget`] the leases that calls are paid from. [`control`] gets policies and leases from the operator. [`mod@run`]
//! starts and stops the process.

mod audit;
mod budget;
mod call;
mod clock;
mod connection;
mod control;
mod edge;
mod memory;
mod methods;
mod metrics;
mod pipeline;
mod policy;
mod pool;
mod request;
mod respond;
mod run;
mod state;
mod trace;
mod upstream;
mod workers;

pub use audit::Audit;
pub use budget::Leases;
pub use connection::{listen, listen_peers, listen_plain};
pub use control::{Args as ControlArgs, Control};
pub use memory::{Memory, default_budget};
pub use policy::InstallError;
pub use run::{Args, run};
pub use state::State;
pub use upstream::Dialer;
pub use workers::Workers;
