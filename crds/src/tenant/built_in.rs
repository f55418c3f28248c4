//! Whether the endpoints of a tenant have the built-in tools.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether endpoints have the built-in tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BuiltInTools {
    /// They have them.
    #[default]
    Enabled,
    /// They have only the tools of their servers.
    Disabled,
}
