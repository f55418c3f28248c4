//! Credentials: the certificate authority (`ca`), the tokens of principals (`tokens`), and the revocations that
//! make unexpired tokens invalid (`revocation`).

pub(crate) mod ca;
pub(crate) mod revocation;
pub mod tokens;
