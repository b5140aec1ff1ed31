//! What a team promises its users: the objectives that a load test is judged by, and that alerts watch.
//!
//! ```yaml
//! objectives:
//!   - { metric: time_to_first_token, quantile: 0.99, below: 3s, model: "gemini-*" }
//!   - { metric: error_ratio, below: 1% }
//!   - { metric: goodput, above: 95% }
//! ```

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limit::Limit;
use crate::metric::{Metric, Unit};
use crate::{ConfigError, Ratio, parse_yaml, schema, within_file};

/// Objectives, and how a load test goes by them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Objectives {
    /// What must hold: at least one, at most 100.
    pub objectives: Vec<Objective>,
    /// How sure a verdict must be; between what is met and what is missed, it is inconclusive.
    pub confidence: Ratio,
    /// Whether a load test ends as soon as an objective can no longer be met.
    pub abort: Abort,
}

/// One promise.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What reports and alerts call it; what it says, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is measured.
    pub metric: Metric,
    /// Of times: which share of them must be below the limit, such as 0.99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub quantile: Option<f64>,
    /// It must be less than this: a time (`3s`) or a ratio (`1%`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Limit>,
    /// It must be more than this: a ratio (`95%`) or, of rates, a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<Limit>,
    /// For calls of these models only; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For calls of these routes only; `*` stands for any characters. In a load test, the `route` of
    /// a mix's entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// For calls of these stages of a load test only; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// For calls that are streamed (`true`), or that are not (`false`), only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
}

/// When a load test ends before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Abort {
    /// It does not.
    #[default]
    Never,
    /// As soon as an objective would be missed even if all went well from then on.
    Early,
}

/// On which side of a limit a figure must lie, in the unit of its metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// It must be less.
    Below(f64),
    /// It must be more.
    Above(f64),
}

/// More than these are no promise that anybody keeps in mind.
const MOST: usize = 100;

// === impl Objectives ===

impl Default for Objectives {
    fn default() -> Self {
        Self { objectives: Vec::new(), confidence: Ratio::percent(95), abort: Abort::default() }
    }
}

impl Objectives {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        within_file(path, Self::parse)
    }

    /// Reads and checks a text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let read: Self = parse_yaml(text)?;
        read.check().map_err(|error| error.within(text))?;
        Ok(read)
    }

    /// The JSON Schema of a file of objectives.
    pub fn schema() -> Value {
        schema::<Self>("Objectives of Tidegate")
    }

    fn check(&self) -> Result<(), ConfigError> {
        const EXAMPLE: &str = "such as `- { metric: error_ratio, below: 1% }`";
        let count = self.objectives.len();
        if count == 0 {
            let message = format!("there are none: write at least one, {EXAMPLE}");
            return Err(ConfigError::at(&["objectives"], message));
        }
        if count > MOST {
            let message = format!("there are {count}, more than the {MOST} that there may be");
            return Err(ConfigError::at(&["objectives"], message));
        }
        if !(0.5..1.0).contains(&self.confidence.share()) {
            let message = "this is not from 50% to less than 100%";
            return Err(ConfigError::at(&["confidence"], message));
        }
        for (at, objective) in self.objectives.iter().enumerate() {
            let wrong = |(key, message): (&str, String)| {
                ConfigError::at(&["objectives", &format!("[{at}]"), key], message)
            };
            objective.check().map_err(wrong)?;
        }
        Ok(())
    }
}

// === impl Objective ===

impl Objective {
    /// The limit, and on which side of it the figure must lie.
    pub fn bound(&self) -> Bound {
        match (self.below, self.above) {
            (Some(limit), _) => Bound::Below(limit.value()),
            (None, Some(limit)) => Bound::Above(limit.value()),
            (None, None) => unreachable!("an objective is checked when it is read"),
        }
    }

    /// Its name, or else what it says.
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.to_string())
    }

    /// The key that is at fault, and how.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let metric = self.metric;
        let (key, limit) = match (self.below, self.above) {
            (Some(below), None) => ("below", below),
            (None, Some(above)) => ("above", above),
            (Some(_), Some(_)) => {
                return Err(("above", "an objective has one limit, not two".to_owned()));
            }
            (None, None) => {
                return Err(("metric", format!("needs a limit: `{}`", metric.example())));
            }
        };
        if key != metric.side() {
            let message = format!("{metric} is kept {}: `{}`", metric.side(), metric.example());
            return Err((key, message));
        }
        if limit.unit() != metric.unit() {
            let message = format!(
                "`{limit}` is no limit of {metric}, which is {}: `{}`",
                metric.unit().as_str(),
                metric.example()
            );
            return Err((key, message));
        }
        if key == "below" && limit.value() <= 0.0 {
            let message = format!("nothing is below {limit}: write the most that you accept");
            return Err((key, message));
        }
        if limit.unit() == Unit::Ratio && key == "above" && limit.value() >= 1.0 {
            let message = format!("nothing is above {limit}: write the least that you accept");
            return Err((key, message));
        }
        self.check_quantile()
    }

    fn check_quantile(&self) -> Result<(), (&'static str, String)> {
        let metric = self.metric;
        match self.quantile {
            None if metric.unit() == Unit::Time => {
                Err(("metric", format!("{metric} needs `quantile`, such as 0.99")))
            }
            Some(_) if metric.unit() != Unit::Time => {
                Err(("quantile", format!("{metric} has no quantiles")))
            }
            Some(quantile) if !(quantile > 0.0 && quantile < 1.0) => {
                let meant = quantile / 100.0;
                let hint = match meant > 0.0 && meant < 1.0 {
                    true => format!("; did you mean {meant}?"),
                    false => String::new(),
                };
                Err(("quantile", format!("{quantile} is not between 0 and 1{hint}")))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.metric)?;
        if let Some(quantile) = self.quantile {
            // As it was written: 0.99 times a hundred is not 99 in floating point.
            write!(f, " p{}", (quantile * 1e8).round() / 1e6)?;
        }
        if let Some(limit) = self.below {
            write!(f, " below {limit}")?;
        }
        if let Some(limit) = self.above {
            write!(f, " above {limit}")?;
        }
        let scope = [("model", &self.model), ("route", &self.route), ("stage", &self.stage)];
        for (key, pattern) in scope {
            if let Some(pattern) = pattern {
                write!(f, ", {key} {pattern}")?;
            }
        }
        match self.stream {
            Some(true) => f.write_str(", streams"),
            Some(false) => f.write_str(", no streams"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_say_what_they_were_read_from() {
        let text = "objectives:\n\
            - { metric: time_to_first_token, quantile: 0.99, below: 3s, model: 'gemini-*' }\n\
            - { metric: error_ratio, below: 1% }\n\
            - { metric: goodput, above: 95%, stream: true }\n\
            - { metric: output_tokens_per_second, above: 500, name: fast enough }\n";
        let read = Objectives::parse(text).expect("good objectives");
        let said: Vec<_> = read.objectives.iter().map(Objective::title).collect();
        assert_eq!(
            said,
            [
                "time_to_first_token p99 below 3s, model gemini-*",
                "error_ratio below 1%",
                "goodput above 95%, streams",
                "fast enough",
            ]
        );
        assert_eq!(read.objectives[0].bound(), Bound::Below(3.0));
        assert_eq!(read.objectives[2].bound(), Bound::Above(0.95));
        let again = serde_json::to_string(&read).expect("they can be written");
        assert_eq!(serde_json::from_str::<Objectives>(&again).expect("and read"), read);
    }

    fn beside_the_program(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)
    }

    #[test]
    fn the_example_is_good_and_its_schema_the_one_that_is_printed() {
        let example = Objectives::read(&beside_the_program("examples/slo.yaml"));
        let example = example.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((example.objectives.len(), example.abort), (5, Abort::Early));
        let text = std::fs::read_to_string(beside_the_program("slo.schema.json"));
        let printed = format!("{:#}\n", Objectives::schema());
        let hint = "run: tidegate load --slo-schema > config/slo.schema.json";
        assert!(text.expect("it is there") == printed, "{hint}");
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_what_was_meant() {
        let one = |objective: &str| format!("objectives:\n  - {{ {objective} }}");
        for (text, parts) in [
            ("objectives: []".to_owned(), &["line 1 column 1", "objectives: there are none"][..]),
            ("objectiv: []".to_owned(), &["objectiv", "did you mean `objectives`?"]),
            (
                one("metric: ttft, below: 3s"),
                &["line 2", "objectives[0].metric", "unknown variant `ttft`"],
            ),
            (
                one("metric: time_to_first_tokn, quantile: 0.99, below: 3s"),
                &["did you mean `time_to_first_token`?"],
            ),
            (
                one("metric: error_ratio, belwo: 1%"),
                &["line 2 column 28", "objectives[0].belwo", "did you mean `below`?"],
            ),
            (
                one("metric: duration, quantile: 99, below: 3s"),
                &[
                    "line 2 column 25",
                    "objectives[0].quantile: 99 is not between",
                    "did you mean 0.99?",
                ],
            ),
            (one("metric: duration, below: 3s"), &["needs `quantile`, such as 0.99"]),
            (one("metric: duration, quantile: 0.5"), &["needs a limit: `below: 3s`"]),
            (
                one("metric: duration, quantile: 0.5, above: 3s"),
                &["objectives[0].above: duration is kept below"],
            ),
            (
                one("metric: duration, quantile: 0.5, below: 3%"),
                &["`3%` is no limit of duration, which is a time"],
            ),
            (
                one("metric: error_ratio, below: 0.01"),
                &["`0.01` is no limit of error_ratio, which is a ratio: `below: 1%`"],
            ),
            (
                one("metric: error_ratio, quantile: 0.5, below: 1%"),
                &["error_ratio has no quantiles"],
            ),
            (one("metric: error_ratio, below: 0%"), &["nothing is below 0%"]),
            (one("metric: goodput, above: 100%"), &["nothing is above 100%"]),
            (one("metric: goodput, below: 95%"), &["goodput is kept above: `above: 95%`"]),
            (one("metric: goodput, above: 95%, below: 3s"), &["one limit, not two"]),
            (one("metric: goodput, above: soon"), &["`soon` is no limit", "3s", "1%"]),
            (one("below: 3s"), &["objectives[0].metric: missing field `metric`"]),
            (
                one("metric: error_ratio, below: 1%") + "\nconfidence: 100%",
                &["line 3 column 1: confidence: ", "less than 100%"],
            ),
            (
                one("metric: error_ratio, below: 1%") + "\nabort: erly",
                &["abort: unknown variant `erly`", "did you mean `early`?"],
            ),
        ] {
            let told = Objectives::parse(&text).expect_err(&text).to_string();
            for part in parts {
                assert!(told.contains(part), "{text}\n  is: {told}\n not: {part}");
            }
        }
    }
}
