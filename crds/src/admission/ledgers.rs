//! Ledgers exist only in the operator's namespace.

use super::{Admission, Builder};

/// Returns the policy that refuses ledgers in every other namespace.
pub(super) fn policy(namespace: &str) -> Admission {
    Builder::new("mcp-fleet-ledgers", &["CREATE", "UPDATE"])
        .on_our_kinds(&["mcpledgers"])
        .require(
            "Forbidden",
            format!(
                "request.operation == 'UPDATE' && object.spec == oldObject.spec || request.namespace == '{namespace}'"
            ),
            format!("MCPLedgers are internal to the operator and exist only in its namespace {namespace}"),
        )
        .build()
}
