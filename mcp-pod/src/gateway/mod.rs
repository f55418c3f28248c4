//! The gateway of one tenant.

pub mod budget;
pub mod control;
pub mod state;
