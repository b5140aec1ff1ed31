//! What a user says of quotas.

use std::borrow::Cow;
use std::num::NonZeroU64;

use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::amounts::{Kind, nanodollars};
use super::rule::Limits;
use super::window::Window;
use crate::config::Span;

/// How much certain calls may use in a window.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaConfig {
    /// Which calls are charged to it; all that is said here must hold.
    #[serde(default, rename = "match")]
    pub matches: QuotaMatch,
    /// Each of these has a budget of its own: caller, model, upstream. Without, all calls share one.
    #[serde(default)]
    pub per: Parts,
    /// For how long what was used counts: `day` or `month` of the calendar, or a length of time such
    /// as 1m, over which the window slides.
    pub window: WindowConfig,
    /// Where days and months begin: an IANA time zone; UTC where absent.
    #[serde(default)]
    pub zone: Option<String>,
    /// Calls in a window.
    #[serde(default)]
    pub requests: Option<NonZeroU64>,
    /// Input tokens in a window, cached ones included.
    #[serde(default)]
    pub input_tokens: Option<NonZeroU64>,
    /// Output tokens in a window, reasoning included.
    #[serde(default)]
    pub output_tokens: Option<NonZeroU64>,
    /// Input and output tokens together.
    #[serde(default)]
    pub tokens: Option<NonZeroU64>,
    /// Cost in a window by the price table, in US dollars.
    #[serde(default)]
    pub cost_usd: Option<Dollars>,
    /// Whether what is spent is only told, or keeps calls out.
    #[serde(default)]
    pub mode: Mode,
    /// What a call holds of it until its usage is known.
    #[serde(default)]
    pub reserve: Reserve,
    /// Whether all sidecars with the same `store` spend it together.
    #[serde(default)]
    pub shared: bool,
}

/// Which calls are charged to a quota; `*` stands for any characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaMatch {
    /// The caller's name.
    pub caller: Option<String>,
    /// The model that is asked for.
    pub model: Option<String>,
    /// The upstream.
    pub upstream: Option<String>,
}

/// What tells the budgets of a quota apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Who calls.
    Caller,
    /// The model that is asked for.
    Model,
    /// The upstream.
    Upstream,
}

/// One or several of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parts(pub Vec<Part>);

/// For how long what was used counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowConfig {
    /// A day of the calendar.
    Day,
    /// A month of the calendar.
    Month,
    /// The last so long, at any moment.
    Sliding(Span),
}

/// Whether what is spent keeps calls out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is told in metrics and records, and nothing else happens.
    #[default]
    Observe,
    /// Calls for which nothing is left are refused with 429.
    Enforce,
}

/// What a call holds of the output until its usage is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reserve {
    /// What calls to its model use on average, and no more than it asks for.
    #[default]
    Average,
    /// The most that it asks for: never is more spent than there is.
    Most,
}

/// An amount of US dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dollars(f64);

/// The longest window that slides: what is longer is a month.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(31 * 24 * 3600);
/// The shortest, of which a slot still is a time that a clock can tell.
const SHORTEST: std::time::Duration = std::time::Duration::from_secs(1);
/// No quota has more: whoever writes more has mistaken the unit.
const MOST_DOLLARS: f64 = 1e9;

// === impl QuotaConfig ===

impl QuotaConfig {
    /// What one key cannot say of itself: the key, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.limits().is_nothing() {
            let keys = Kind::ALL.map(Kind::as_str).join(", ");
            return Err(("", format!("limits nothing; give at least one of {keys}")));
        }
        if let WindowConfig::Sliding(Span(length)) = self.window
            && !(SHORTEST..=LONGEST).contains(&length)
        {
            let message = "a window that slides has 1s to 744h; a longer one is `month`";
            return Err(("window", message.to_owned()));
        }
        let Some(zone) = &self.zone else { return Ok(()) };
        if matches!(self.window, WindowConfig::Sliding(_)) {
            return Err(("zone", "says nothing: only a day or a month has a zone".to_owned()));
        }
        TimeZone::get(zone).map(drop).map_err(|_| {
            ("zone", format!("`{zone}` is not a time zone; write one such as Europe/Berlin"))
        })
    }

    /// What it limits.
    pub(super) fn limits(&self) -> Limits {
        let of = |limit: Option<NonZeroU64>| limit.map(NonZeroU64::get);
        let limits = [
            (Kind::Requests, of(self.requests)),
            (Kind::InputTokens, of(self.input_tokens)),
            (Kind::OutputTokens, of(self.output_tokens)),
            (Kind::Tokens, of(self.tokens)),
            (Kind::Cost, self.cost_usd.map(|Dollars(dollars)| nanodollars(dollars))),
        ];
        Limits::new(limits.into_iter().filter_map(|(kind, limit)| Some((kind, limit?))))
    }

    /// For how long what was used counts.
    pub(super) fn window(&self) -> Window {
        let zone = || {
            let zone = self.zone.as_deref().map(TimeZone::get);
            zone.map_or(TimeZone::UTC, |zone| zone.expect("the configuration was checked"))
        };
        match self.window {
            WindowConfig::Day => Window::Day(zone()),
            WindowConfig::Month => Window::Month(zone()),
            WindowConfig::Sliding(Span(length)) => {
                let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX / 4);
                if self.shared { Window::Dated(length) } else { Window::Sliding(length) }
            }
        }
    }
}

// === impl Mode ===

impl Mode {
    pub(super) const ALL: [Self; 2] = [Self::Observe, Self::Enforce];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

// === impl Parts ===

impl Parts {
    pub(super) fn has(&self, part: Part) -> bool {
        self.0.contains(&part)
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            One(Part),
            Several(Vec<Part>),
        }
        match Said::deserialize(deserializer) {
            Ok(Said::One(part)) => Ok(Self(vec![part])),
            Ok(Said::Several(parts)) => Ok(Self(parts)),
            Err(_) => Err(serde::de::Error::custom(
                "is none of caller, model and upstream, and no list of these",
            )),
        }
    }
}

impl JsonSchema for Parts {
    fn schema_name() -> Cow<'static, str> {
        "Parts".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let part = generator.subschema_for::<Part>();
        json_schema!({ "anyOf": [part, { "type": "array", "items": part }] })
    }
}

// === impl WindowConfig ===

impl<'de> Deserialize<'de> for WindowConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "day" => Ok(Self::Day),
            "month" => Ok(Self::Month),
            length => {
                let span =
                    serde::de::value::StrDeserializer::<serde::de::value::Error>::new(length);
                Span::deserialize(span).map(Self::Sliding).map_err(|_| {
                    serde::de::Error::custom(format!(
                        "`{length}` is no window; write day, month, or a length of time such as 1m"
                    ))
                })
            }
        }
    }
}

impl Serialize for WindowConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Day => serializer.serialize_str("day"),
            Self::Month => serializer.serialize_str("month"),
            Self::Sliding(span) => span.serialize(serializer),
        }
    }
}

impl JsonSchema for WindowConfig {
    fn schema_name() -> Cow<'static, str> {
        "Window".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let span = generator.subschema_for::<Span>();
        json_schema!({ "anyOf": [{ "enum": ["day", "month"] }, span] })
    }
}

// === impl Dollars ===

impl Dollars {
    /// So many.
    pub(crate) fn amount(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        if dollars <= MOST_DOLLARS && nanodollars(dollars) > 0 {
            return Ok(Self(dollars));
        }
        Err(serde::de::Error::custom(format!("`{dollars}` is no amount of US dollars above zero")))
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl JsonSchema for Dollars {
    fn schema_name() -> Cow<'static, str> {
        "Dollars".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "exclusiveMinimum": 0, "maximum": MOST_DOLLARS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<QuotaConfig, String> {
        let config: QuotaConfig =
            crate::config::parse_yaml(text).map_err(|error| error.to_string())?;
        config.check().map_err(|(key, message)| format!("{key}: {message}"))?;
        Ok(config)
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, part) in [
            ("{ window: day }", "limits nothing"),
            ("{ requests: 5 }", "missing field `window`"),
            ("{ window: minute, requests: 5 }", "`minute` is no window; write day, month"),
            ("{ window: 10ms, requests: 5 }", "window: a window that slides has 1s to 744h"),
            ("{ window: day, requests: 0 }", "nonzero"),
            ("{ window: day, cost_usd: 0 }", "no amount of US dollars"),
            ("{ window: day, cost_usd: -1 }", "no amount of US dollars"),
            ("{ window: day, cost_usd: .nan }", "no amount of US dollars"),
            ("{ window: day, request: 5 }", "did you mean `requests`"),
            ("{ window: day, requests: 5, per: team }", "none of caller, model and upstream"),
            ("{ window: day, requests: 5, zone: Mars }", "zone: `Mars` is not a time zone"),
            ("{ window: 1m, requests: 5, zone: UTC }", "zone: says nothing"),
            ("{ window: day, requests: 5, match: { modle: a } }", "did you mean `model`"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn one_part_reads_as_a_list_of_one() {
        let read = |per: &str| read(&format!("{{ window: day, requests: 5, per: {per} }}"));
        assert_eq!(read("caller").expect("good").per, Parts(vec![Part::Caller]));
        let several = read("[caller, model]").expect("good").per;
        assert_eq!(several, Parts(vec![Part::Caller, Part::Model]));
    }

    #[test]
    fn a_quota_that_is_shown_reads_as_the_same() {
        for text in [
            "{ window: 90s, tokens: 5, per: model, match: { caller: 'a*' } }",
            "{ window: month, cost_usd: 0.25, zone: Europe/Berlin, mode: enforce, reserve: most }",
        ] {
            let config = read(text).expect("good");
            let shown = serde_json::to_string(&config).expect("it can be shown");
            assert_eq!(read(&shown).expect("good"), config);
        }
    }
}
