//! Support for tests that drive a whole reconcile: a fake API server, and a context whose cache the test fills.

mod access;
mod api;
mod context;
mod fleet;
mod later;
mod metrics;
mod statuses;

pub(crate) use api::{FakeApi, Write};
pub(crate) use context::TestContext;
