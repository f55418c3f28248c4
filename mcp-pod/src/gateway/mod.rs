//! The gateway of one tenant: its one door, through which every call of every agent passes.
//!
//! A request goes through these stages, one file or folder each, and ends at the first that refuses it:
//!
//! 1. [`listen`], [`serve`]: TLS, HTTP/1.1 and HTTP/2, limits on connections, heads and bodies.
//! 2. [`authenticate`]: the bearer token, from headers alone.
//! 3. [`route`], [`read_body`], [`decode`]: one well-formed message of one revision.
//! 4. [`methods`]: what each method does; `tools/call` authorises, validates, governs and reserves.
//! 5. [`forward`], [`answer`]: through [`upstream`] to the shim, and what comes back, checked.
//! 6. [`settle`], [`journal`]: money, [`metrics`] and the [`audit`] line, for calls that went and for those refused.
//!
//! [`pipeline`] holds them together. [`state`] is what they share, [`enforced`] one generation of the policy;
//! [`control`] brings policies and money from the operator.

mod answer;
pub mod audit;
mod authenticate;
pub mod budget;
pub mod control;
mod decode;
mod detach;
mod digest;
mod enforced;
mod envelope;
mod forward;
mod freshness;
mod granted;
mod inflight;
mod journal;
mod listen;
mod lists;
mod methods;
pub mod metrics;
mod pipeline;
mod quota;
mod read_body;
mod refused;
mod respond;
mod route;
mod run;
mod seldom;
mod serve;
mod session;
mod settle;
pub mod state;
mod trail;
mod upstream;
mod workers;

pub use listen::{listen, listen_plain};
pub use run::{Args, run};
pub use serve::serve_connection;
pub use upstream::Dialer;
pub use workers::Workers;
