//! Times: the part of `format: date-time` that every reader of the API understands.
//!
//! The format alone admits much that is no time: any character before the fraction, a fraction of any length, an offset
//! of `+99:00`, and any text after a second `t`. Kubernetes' own `metav1.Time` reads none of these, and no `t` or `z` in
//! lower case. A pattern beside the format leaves only what RFC 3339 defines, in capitals. The years are those of which
//! every offset stays within four digits.

use mcp_fleet_policy::units::TextForm;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Form of a time, such as `2026-11-22T12:00:00Z` or `2026-11-22T13:00:00.5+01:00`. The format checks that the date exists.
pub(crate) static TIME: TextForm = TextForm::new(
    "^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?\
     (Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
    35,
);

/// Returns the schema of a time. Kubernetes' own type has none. The pattern is added to every time at the end.
pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ordinary_forms_of_rfc_3339_are_admitted_and_read() {
        for text in [
            "2026-11-22T12:00:00Z",
            "2026-11-22T12:00:00.5Z",
            "2026-11-22T12:00:00.123456789+05:30",
            "2024-02-29T23:59:59-23:59",
            "2026-11-22T12:00:00-00:00",
            "1000-01-01T00:00:00+23:59",
            "2999-12-31T23:59:59.999999999-23:59",
        ] {
            assert!(TIME.admits(text), "{text}");
            assert!(serde_json::from_value::<Time>(json!(text)).is_ok(), "{text}");
        }
    }

    #[test]
    fn times_that_only_some_readers_understand_are_refused() {
        for text in [
            "2026-11-22T12:00:00.0123456789Z",
            "2026-11-22T12:00:00.Z",
            "2026-11-22T12:00:00,5Z",
            "2026-11-22T12:00:00é5Z",
            "2026-11-22T12:00:00+99:00",
            "2026-11-22T12:00:00+24:00",
            "2026-11-22T12:00:00+01:60",
            "2026-11-22T12:00:00+0100",
            "2026-11-22T12:00:00",
            "2026-11-22t12:00:00Z",
            "2026-11-22T12:00:00z",
            "2026-11-22T12:00:00Ztrash",
            "2026-11-22T23:59:60Z",
            "2026-11-22T24:00:00Z",
            "2026-13-22T12:00:00Z",
            "0000-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59Z",
            " 2026-11-22T12:00:00Z",
            "2026-11-22T12:00:00Z\n",
        ] {
            assert!(!TIME.admits(text), "{text}");
        }
    }
}
