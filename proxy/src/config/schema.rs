//! The JSON Schema of the configuration, made of the structs that read it.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::Config;

/// The schema of a whole configuration. It keeps to draft 7, which every editor knows.
pub(super) fn whole() -> Schema {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Config>();
    schema.insert("title".to_owned(), "Configuration of Tidegate".into());
    schema
}

/// An address as a user writes it, for `#[schemars(with = "Address")]`.
pub(super) struct Address;

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^([0-9.]+|\[[0-9a-fA-F:.%]+\]):[0-9]+$",
            "examples": ["127.0.0.1:4100", "[::1]:4100"],
        })
    }
}
