//! JSON Schemas of the text forms, for the custom resources, with the same limits as the parsers.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Bytes, Currency, Micros, Window};

macro_rules! text_schema {
    ($type:ty, $name:literal, $max:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": <$type>::PATTERN, "maxLength": $max})
            }
        }
    };
}

text_schema!(Bytes, "Bytes", 14);
text_schema!(Currency, "Currency", 3);
text_schema!(Micros, "Micros", 17);
text_schema!(Window, "Window", 28);
