//! What the pods are like that MCP Fleet makes, beside the programs in them: what their images are pulled with.

mod pull_secret;

pub use pull_secret::PullSecretRef;
