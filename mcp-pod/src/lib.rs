//! The MCP Fleet data plane.
