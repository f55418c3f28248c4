//! Schema of Kubernetes quantities.

use std::borrow::Cow;

use mcp_fleet_policy::units::TextForm;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Form of a quantity that Kubernetes reads and that is not negative, such as `500m`, `1.5Gi` or `1e3`.
static QUANTITY: TextForm =
    TextForm::new(r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$", 32);

/// Schema of a `Quantity`: an integer or a string. The type itself reads any number and any string.
#[derive(Debug)]
pub(crate) struct QuantitySchema;

impl JsonSchema for QuantitySchema {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Quantity, such as 500m or 256Mi.",
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "pattern": QUANTITY.pattern,
            "maxLength": QUANTITY.max_length,
        })
    }
}
