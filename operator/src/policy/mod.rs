//! Writes the policies of tenants as snapshots and proves that they are current: [`publish`].

pub(crate) mod publish;
