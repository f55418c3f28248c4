//! The policies of tenants: [`compile`] compiles one from a tenant's objects, [`publish`] writes it as a snapshot and
//! proves that it is current. [`images`] checks which images a tenant may run.

pub(crate) mod compile;
pub(crate) mod images;
pub(crate) mod publish;
