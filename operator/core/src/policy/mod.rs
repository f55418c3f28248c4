//! The policies of tenants: [`compile`] compiles one from a tenant's objects, [`fit`] sees that it fits and that gateways
//! accept it, and [`images`] checks which images a tenant may run.

pub mod compile;
pub mod fit;
pub mod images;
