//! Support for tests of what the components export.

use prometheus::{Registry, TextEncoder};

/// Returns the metrics of a registry in Prometheus' text format, with 1 in place of each value: many values depend on the
/// time, and a snapshot is to show names, types and labels.
pub fn metrics_without_values(registry: &Registry) -> prometheus::Result<String> {
    let text = TextEncoder::new().encode_to_string(&registry.gather())?;
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((series, _)) if !line.starts_with('#') => format!("{series} 1"),
        _ => line.to_owned(),
    };
    Ok(text.lines().map(line).collect::<Vec<_>>().join("\n"))
}
