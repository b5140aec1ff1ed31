//! What an answer says of the provider's rate limits.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::line::Line;

const LIMIT: &str = "tidegate.ratelimit.limit.";
const REMAINING: &str = "tidegate.ratelimit.remaining.";
const RESET: &str = "tidegate.ratelimit.reset_s.";

/// The rate limits that an answer names, by dimension.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimits(pub Vec<RateLimit>);

/// One dimension of the provider's rate limits. It is written as up to three keys that end in the
/// dimension, such as `tidegate.ratelimit.remaining.requests`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimit {
    /// `requests`, `tokens`, `input-tokens`, `requests-day`, ...: the provider's word.
    pub dimension: String,
    /// How much there is for a window.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: Option<u64>,
    /// Seconds until the window begins anew.
    pub reset_s: Option<f64>,
}

// === impl RateLimits ===

impl RateLimits {
    /// The entry of a dimension, which is made where it is missing.
    pub fn entry(&mut self, dimension: &str) -> &mut RateLimit {
        let at = self.0.iter().position(|limit| limit.dimension == dimension);
        let at = at.unwrap_or_else(|| {
            self.0.push(RateLimit { dimension: dimension.to_owned(), ..RateLimit::default() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    pub(super) fn write(&self, line: &mut Line<'_>) {
        for limit in &self.0 {
            line.plain_below(LIMIT, &limit.dimension, limit.limit);
            line.plain_below(REMAINING, &limit.dimension, limit.remaining);
            line.seconds_below(RESET, &limit.dimension, limit.reset_s);
        }
    }
}

impl Serialize for RateLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for limit in &self.0 {
            let key = |start: &str| format!("{start}{}", limit.dimension);
            if let Some(value) = limit.limit {
                map.serialize_entry(&key(LIMIT), &value)?;
            }
            if let Some(value) = limit.remaining {
                map.serialize_entry(&key(REMAINING), &value)?;
            }
            if let Some(value) = limit.reset_s {
                map.serialize_entry(&key(RESET), &value)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RateLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys)
    }
}

/// Picks the keys of rate limits out of a record's.
struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = RateLimits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RateLimits, A::Error> {
        let mut limits = RateLimits::default();
        while let Some(key) = map.next_key::<String>()? {
            if let Some(dimension) = key.strip_prefix(LIMIT) {
                limits.entry(dimension).limit = Some(map.next_value()?);
            } else if let Some(dimension) = key.strip_prefix(REMAINING) {
                limits.entry(dimension).remaining = Some(map.next_value()?);
            } else if let Some(dimension) = key.strip_prefix(RESET) {
                limits.entry(dimension).reset_s = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(limits)
    }
}
