//! Credentials: the certificate authority ([`ca`]), the tokens of principals ([`tokens`]), and the revocations that
//! make unexpired tokens invalid ([`revocation`]).

pub mod ca;
pub mod revocation;
pub mod tokens;
