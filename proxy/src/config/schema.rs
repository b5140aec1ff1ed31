//! The JSON Schema of the configuration, made of the structs that read it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::Config;

/// The schema of a whole configuration.
pub(super) fn whole() -> Value {
    tidegate_settings::schema::<Config>("Configuration of Tidegate")
}

/// An address as a user writes it, for `#[schemars(with = "Address")]`.
pub(crate) struct Address;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every property of every object, with the way to it.
    fn properties<'a>(value: &'a Value, way: &str, found: &mut Vec<(String, &'a Value)>) {
        match value {
            Value::Object(entries) => {
                for (key, below) in entries {
                    let way = format!("{way}/{key}");
                    if let (true, Value::Object(of)) = (key == "properties", below) {
                        found.extend(of.iter().map(|(key, it)| (format!("{way}/{key}"), it)));
                    }
                    properties(below, &way, found);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| properties(value, way, found)),
            _ => {}
        }
    }

    #[test]
    fn every_key_says_what_it_is_and_has_a_default_or_is_required() {
        let schema = whole();
        let mut found = Vec::new();
        properties(&schema, "", &mut found);
        assert!(found.len() > 50, "{}", found.len());
        let silent = found.iter().filter(|(_, property)| property.get("description").is_none());
        let silent: Vec<_> = silent.map(|(way, _)| way).collect();
        assert!(silent.is_empty(), "no description: {silent:#?}");
        assert_eq!(schema["properties"]["listen"]["default"], "127.0.0.1:4100");
        assert_eq!(schema["properties"]["timeouts"]["default"]["idle"], "5m");
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn the_schema_beside_the_reference_is_the_one_that_is_printed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/tidegate.schema.json");
        let text = std::fs::read_to_string(path).expect("it is there");
        let printed = format!("{:#}\n", whole());
        assert!(text == printed, "run: tidegate check --schema > config/tidegate.schema.json");
    }
}
