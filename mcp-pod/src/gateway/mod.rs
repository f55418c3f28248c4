//! The gateway of one tenant.

pub mod budget;
pub mod state;
