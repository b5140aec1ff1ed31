//! Lengths of time and sizes, written with their units.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::fmt::StdFmtWrite;
use jiff::fmt::friendly::SpanPrinter;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, written with its unit: `1.5s`, `20ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A share of a whole: `20%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

/// A number of bytes, written with its unit: `8MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

// === impl Span ===

impl Span {
    /// Reads a length of time above zero.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let read = Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()?;
        (!read.is_zero()).then_some(Self(read))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is not a duration above zero; write a number with its unit, such as 1.5s or 20ms"
            ))
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: SpanPrinter = SpanPrinter::new();
        SHOWN.print_unsigned_duration(&self.0, StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\+?\s*[0-9.][0-9.,: a-zA-Zµ]*$",
            "examples": ["1.5s", "20ms", "5m"],
        })
    }
}

// === impl Size ===

impl Size {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

    /// So many KiB.
    pub const fn kib(number: u64) -> Self {
        Self(number << 10)
    }

    /// So many MiB.
    pub const fn mib(number: u64) -> Self {
        Self(number << 20)
    }

    /// In bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = text.parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64()));
        read.map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is not a size; write a number with its unit, such as 8MiB"
            ))
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole =
            Self::UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        let (name, unit) = whole.copied().unwrap_or(("B", 1));
        serializer.collect_str(&format_args!("{}{name}", self.0 / unit))
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^[0-9.]+\s*([kKmMgGtTpP]?[iI]?[bB]?)$",
            "minimum": 0,
            "examples": ["8MiB"],
        })
    }
}

// === impl Ratio ===

impl Ratio {
    /// So many hundredths.
    pub const fn percent(percent: u8) -> Self {
        Self(percent as f64 / 100.0)
    }

    /// A share from 0 to 1; what lies beyond is taken for the nearer of these.
    pub fn of(share: f64) -> Self {
        Self(share.clamp(0.0, 1.0))
    }

    /// Reads a number with a percent sign, from 0% to 100%.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let percent: f64 = text.strip_suffix('%')?.trim_end().parse().ok()?;
        (0.0..=100.0).contains(&percent).then_some(Self(percent / 100.0))
    }

    /// The share, from 0 to 1.
    pub fn share(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is not a ratio from 0% to 100%; write a number with a percent sign, such as 20%"
            ))
        })
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // To a billionth: what was written in hundredths reads as such.
        write!(f, "{}%", (self.0 * 1e11).round() / 1e9)
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^[0-9.]+\s*%$",
            "examples": ["20%"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_as_the_same() {
        for text in ["8MiB", "1GiB", "1025B", "0B", "1536KiB"] {
            let size: Size = serde_saphyr::from_str(text).expect("a size");
            assert_eq!(serde_json::to_value(size).expect("it can be shown"), text);
        }
        for (text, shown) in [("900s", "15m"), ("1.5s", "1s 500ms"), ("1h", "1h"), ("20ms", "20ms")]
        {
            let span: Span = serde_saphyr::from_str(text).expect("a duration");
            let again = serde_json::to_value(span).expect("it can be shown");
            assert_eq!(again, shown);
            assert_eq!(serde_json::from_value::<Span>(again).expect("a duration"), span);
        }
    }
}
