//! JSON Schemas of the text forms, for the custom resources.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Bytes, Currency, Micros, TextForm, Window, micros, size, window};

impl TextForm {
    /// Returns the JSON Schema of the form.
    fn schema(&self) -> Schema {
        json_schema!({"type": "string", "pattern": self.pattern, "maxLength": self.max_length})
    }
}

macro_rules! text_schema {
    ($type:ty, $name:literal, $form:path) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $form.schema()
            }
        }
    };
}

text_schema!(Bytes, "Bytes", size::FORM);
text_schema!(Currency, "Currency", micros::CURRENCY);
text_schema!(Micros, "Micros", micros::FORM);
text_schema!(Window, "Window", window::FORM);
