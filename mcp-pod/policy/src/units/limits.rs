//! Limits of settings with units, for the custom resources that carry them and the data plane that enforces them.

use super::{Bytes, Window};

/// Smallest and largest accepted value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<T> {
    /// Smallest accepted value.
    pub min: T,
    /// Largest accepted value.
    pub max: T,
}

/// Time that a gateway waits for the result of a call.
pub const CALL_TIMEOUT: Limits<Window> = Limits { min: Window::from_millis(100), max: Window::from_secs(3600) };
/// Time that a server may take to start.
pub const START_TIMEOUT: Limits<Window> = Limits { min: Window::from_secs(1), max: Window::from_secs(600) };
/// Time that a server may take to end.
pub const STOP_GRACE: Limits<Window> = Limits { min: Window::from_secs(1), max: Window::from_secs(300) };
/// Time without a call after which a server is stopped.
pub const IDLE_STOP: Limits<Window> = Limits { min: Window::from_secs(60), max: Window::from_secs(24 * 3600) };
/// Data in a directory for temporary data.
pub const SCRATCH_SIZE: Limits<Bytes> = Limits { min: Bytes::new(1 << 20), max: Bytes::new(1 << 40) };
/// Time at the server from which on a call is slow.
pub const SLOW_CALL: Limits<Window> = Limits { min: Window::from_millis(10), max: Window::from_secs(3600) };
/// Time for which a breaker refuses calls.
pub const BREAKER_OPEN: Limits<Window> = Limits { min: Window::from_secs(1), max: Window::from_secs(3600) };
/// Size of a request body.
pub const REQUEST_SIZE: Limits<Bytes> = Limits { min: Bytes::new(1 << 10), max: Bytes::new(16 << 20) };
/// Size of a result.
pub const RESPONSE_SIZE: Limits<Bytes> = Limits { min: Bytes::new(1 << 10), max: Bytes::new(64 << 20) };
/// Time for which calls count as part of a loop.
pub const LOOP_WINDOW: Limits<Window> = Limits { min: Window::from_secs(60), max: Window::from_secs(24 * 3600) };
/// Time for which the calls of a loop are refused.
pub const LOOP_COOL_DOWN: Limits<Window> = Limits { min: Window::from_secs(10), max: Window::from_secs(3600) };
/// Lifetime of a token.
pub const TOKEN_LIFETIME: Limits<Window> = Limits { min: Window::from_secs(60), max: Window::from_secs(168 * 3600) };
/// Shortest time during which two tokens of a principal are valid, so that callers have time to read the new one.
pub const MIN_TOKEN_OVERLAP: Window = Window::from_secs(10);
/// Age of the last proof that the policy is current. With less, every failover of the operator would refuse calls.
pub const STALE_AFTER: Limits<Window> = Limits { min: Window::from_secs(5), max: Window::from_secs(3600) };
/// Memory limit of a gateway pod. Half of the smallest one is just enough for the largest default answer.
pub const GATEWAY_MEMORY: Limits<Bytes> = Limits { min: Bytes::new(64 << 20), max: Bytes::new(64 << 30) };
/// Memory that the scheduler reserves for a gateway pod.
pub const GATEWAY_MEMORY_REQUEST: Limits<Bytes> = Limits { min: Bytes::new(16 << 20), max: Bytes::new(64 << 30) };
