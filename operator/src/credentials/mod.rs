//! Secret material: the certificate authority ([`ca`]), the tokens of principals ([`tokens`]), and which tokens are
//! refused although they have not expired ([`revocation`]).

pub(crate) mod ca;
pub(crate) mod revocation;
pub mod tokens;
