//! The policy of a tenant: [`compile`] makes it from the tenant's objects, [`publish`] writes it as a snapshot and proves
//! that it is current.

pub(crate) mod compile;
pub(crate) mod images;
pub(crate) mod publish;
