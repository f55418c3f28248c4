//! Log lines: JSON on standard error.
//!
//! Peers can cause log lines before they are authenticated, also in libraries: h2 warns about every unexpected PING
//! frame. Therefore each place in the code gets few lines a second ([`throttle`]), and a thread of its own writes them,
//! so that a blocked standard error never blocks a call. Lines that are dropped are counted ([`dropped`]).

mod dropped;
mod throttle;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use dropped::DroppedLines;
use throttle::Throttle;

/// Lines that wait for the thread that writes them.
const QUEUED_LINES: usize = 1024;

/// Writes the queued lines when it is dropped, for a limited time.
#[must_use = "without it, the last lines are lost"]
#[derive(Debug)]
pub struct Guard(#[expect(dead_code, reason = "held for its drop")] WorkerGuard);

/// Starts logging. `RUST_LOG` sets the levels; the default is `info`.
pub fn init() -> Guard {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES).finish(std::io::stderr());
    dropped::watch(writer.error_counter());
    let lines = tracing_subscriber::fmt::layer().json().with_writer(writer);
    tracing_subscriber::registry().with(filter).with(Throttle::default()).with(lines).init();
    Guard(guard)
}
