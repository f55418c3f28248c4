//! The MCP methods that the gateway offers.

/// Name of the method that calls a tool.
pub(crate) const TOOLS_CALL: &str = "tools/call";

/// Returns the method's name as a static string, if any revision offers it.
pub(crate) fn known_method(method: &str) -> Option<&'static str> {
    const OFFERED: [&str; 7] = [
        TOOLS_CALL,
        "tools/list",
        "initialize",
        "notifications/initialized",
        "notifications/cancelled",
        "ping",
        "server/discover",
    ];
    OFFERED.into_iter().find(|offered| *offered == method)
}
