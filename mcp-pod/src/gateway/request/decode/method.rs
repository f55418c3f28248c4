//! The methods of MCP that are offered.

/// The method that calls a tool.
pub(crate) const CALL: &str = "tools/call";

/// The method of that name, if it is offered in any revision.
pub(crate) fn known(method: &str) -> Option<&'static str> {
    const OFFERED: [&str; 7] = [
        CALL,
        "tools/list",
        "initialize",
        "notifications/initialized",
        "notifications/cancelled",
        "ping",
        "server/discover",
    ];
    OFFERED.into_iter().find(|offered| *offered == method)
}
