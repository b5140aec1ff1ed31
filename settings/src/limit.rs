//! A limit as users write it: `3s`, `1%` or `100`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metric::Unit;
use crate::{Ratio, Span};

/// A limit; which kind it must be is its metric's business.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// A length of time.
    Time(Span),
    /// A share of a whole.
    Ratio(Ratio),
    /// A number.
    Number(f64),
}

// === impl Limit ===

impl Limit {
    /// Seconds, a share from 0 to 1, or the number.
    pub fn value(self) -> f64 {
        match self {
            Self::Time(span) => span.0.as_secs_f64(),
            Self::Ratio(ratio) => ratio.share(),
            Self::Number(number) => number,
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Time(_) => Unit::Time,
            Self::Ratio(_) => Unit::Ratio,
            Self::Number(_) => Unit::Rate,
        }
    }

    fn read(text: &str) -> Option<Self> {
        let number = || text.parse().ok().filter(|number: &f64| *number >= 0.0);
        if text.ends_with('%') {
            return Ratio::read(text).map(Self::Ratio);
        }
        number().map(Self::Number).or_else(|| Span::read(text).map(Self::Time))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no limit; write a time such as 3s, a ratio such as 1%, or a number"
            ))
        })
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(span) => span.fmt(f),
            Self::Ratio(ratio) => ratio.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": r"^[0-9.][0-9.,: a-zA-Zµ]*%?$",
            "minimum": 0,
            "examples": ["3s", "1%", 100],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shown_as_it_was_written() {
        for text in ["3s", "250ms", "1%", "0.5%", "100", "2.5", "1m 30s"] {
            let limit = Limit::read(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(limit.to_string(), text);
        }
        for text in ["", "soon", "-1", "0s", "101%", "3 apples", "NaN"] {
            assert_eq!(Limit::read(text), None, "{text}");
        }
    }
}
