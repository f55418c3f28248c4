//! A program that serves MCP over HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::container::{Container, container_rules};
use crate::schema::{cel, rules};

/// Ports on which the shim listens, in the same network namespace.
const SHIM_PORTS: [u16; 2] = [8443, 9090];

/// A program in a container image that serves MCP over HTTP: Streamable HTTP of any revision of MCP from 2025-03-26 on, or HTTP
/// with SSE of 2024-11-05. Its sockets are IPv4, are reached on the loopback interface only, and open no connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&http_rules())))]
pub struct Http {
    /// The program.
    #[serde(flatten)]
    pub container: Container,
    /// Port on which the program listens, 1 to 65535, but not 8443 or 9090. It has to listen on an IPv4 address, such as 0.0.0.0
    /// or 127.0.0.1. Whichever it is, only the shim in the same pod can reach it.
    #[serde(deserialize_with = "crate::integer::required")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path of the MCP endpoint; with `transport: SSE`, that of the event stream. May have a query. Default: /mcp.
    #[serde(default = "default_path")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*(\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?$")
    )]
    pub path: String,
    /// How the program serves MCP. StreamableHTTP: at one path, as in MCP since 2025-03-26. SSE: with an event stream and a
    /// separate path for messages, as in MCP 2024-11-05. Default: StreamableHTTP.
    #[serde(default)]
    pub transport: HttpTransport,
}

/// A transport of MCP over HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpTransport {
    /// Streamable HTTP (MCP 2025-03-26 and later).
    #[default]
    StreamableHTTP,
    /// HTTP with SSE (MCP 2024-11-05).
    SSE,
}

fn default_path() -> String {
    "/mcp".to_owned()
}

fn http_rules() -> Vec<(String, String)> {
    let ports = SHIM_PORTS.map(|port| port.to_string());
    let port = cel(
        &format!("!(self.port in [{}])", ports.join(", ")),
        &format!(
            "port must not be {}, on which the shim listens; let the program listen on another",
            ports.join(" or ")
        ),
    );
    container_rules().into_iter().chain([port]).collect()
}
