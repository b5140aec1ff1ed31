//! What becomes of a call whose caller leaves before the end, where its upstream bills the rest of it
//! in any case.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{Size, Span};
use crate::going_on::{AllPlaces, Places, Stay, Terms};

/// What becomes of a call whose caller leaves before the end: `cancel`, `drain`, or
/// `{ drain: { time: 30s } }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// The upstream is told at once, and may stop.
    #[default]
    Cancel,
    /// Its answer is read on, so that its usage is known.
    Drain(DrainConfig),
}

/// How far an answer is read on whose caller has left.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// For how long.
    pub time: Span,
    /// How much of it.
    pub bytes: Size,
}

/// What may stand behind `on_disconnect` where it is more than a word.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DrainPolicy {
    /// How far the answer is read on.
    drain: DrainConfig,
}

/// The answers of one upstream that are read on, of all workers.
#[derive(Debug)]
pub(crate) struct Drains {
    terms: Terms,
    places: Places,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { time: Span(Duration::from_secs(60)), bytes: Size::mib(16) }
    }
}

// === impl OnDisconnect ===

impl<'de> Deserialize<'de> for OnDisconnect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = OnDisconnect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`cancel`, `drain` or `{ drain: { time: 60s, bytes: 16MiB } }`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<OnDisconnect, E> {
                match word {
                    "cancel" => Ok(OnDisconnect::Cancel),
                    "drain" => Ok(OnDisconnect::Drain(DrainConfig::default())),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, keys: A) -> Result<OnDisconnect, A::Error> {
                let keys = DrainPolicy::deserialize(MapAccessDeserializer::new(keys))?;
                Ok(OnDisconnect::Drain(keys.drain))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for OnDisconnect {
    fn schema_name() -> Cow<'static, str> {
        "OnDisconnect".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<DrainPolicy>();
        json_schema!({
            "description": "What becomes of a call whose caller leaves before the end.",
            "anyOf": [{ "enum": ["cancel", "drain"] }, keys],
        })
    }
}

// === impl Drains ===

impl Drains {
    /// Those of an upstream, where it has any.
    pub(crate) fn of(config: &OnDisconnect, all: &AllPlaces) -> Option<Self> {
        let OnDisconnect::Drain(DrainConfig { time, bytes }) = config else { return None };
        let terms = Terms { time: time.0, bytes: bytes.as_u64() };
        Some(Self { terms, places: Places::among(all) })
    }

    /// How many are read on now.
    pub(crate) fn open(&self) -> usize {
        self.places.open()
    }
}

impl Stay for Drains {
    fn terms(&self) -> Option<Terms> {
        Some(self.terms)
    }

    fn places(&self) -> &Places {
        &self.places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_will_do_and_what_is_shown_reads_back() {
        let longer = DrainConfig { time: Span(Duration::from_secs(90)), ..DrainConfig::default() };
        for (text, means) in [
            (r#""cancel""#, OnDisconnect::Cancel),
            (r#""drain""#, OnDisconnect::Drain(DrainConfig::default())),
            (r#"{"drain":{"time":"90s"}}"#, OnDisconnect::Drain(longer)),
        ] {
            let read: OnDisconnect = serde_json::from_str(text).expect("a policy");
            assert_eq!(read, means, "{text}");
            let shown = serde_json::to_string(&read).expect("it is shown");
            assert_eq!(serde_json::from_str::<OnDisconnect>(&shown).expect("a policy"), means);
        }
    }
}
