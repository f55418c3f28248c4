//! The gateway of one tenant.
