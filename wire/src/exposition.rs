//! Figures as exporters show them: the text format of Prometheus and OpenMetrics, line by line.
//!
//! Borrowed from the text wherever nothing is escaped. A line that is malformed is an error of that line
//! alone: what stands around it is still good. Timestamps and exemplars are read over.
//!
//! Sources: Prometheus, "Exposition formats" (0.0.4 and the quoted names of 1.0.0); OpenMetrics 1.0.

use std::borrow::Cow;
use std::fmt;

/// One line that says something.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// `# TYPE`: what kind a family is.
    Type {
        /// The name of the family.
        name: Cow<'a, str>,
        /// Its kind.
        kind: Kind,
    },
    /// `# HELP`: what a family is.
    Help {
        /// The name of the family.
        name: Cow<'a, str>,
        /// As it is written, escapes and all.
        text: &'a str,
    },
    /// A value.
    Sample(Sample<'a>),
}

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The name, with the suffix that its kind gives it: `_bucket`, `_sum`, `_count`, `_total`.
    pub name: Cow<'a, str>,
    /// In the order in which they stand there.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// As stated: `NaN` and infinities are values too.
    pub value: f64,
}

/// The kinds of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for restarts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts in buckets.
    Histogram,
    /// Quantiles that the exporter reckoned itself.
    Summary,
    /// Anything else: `untyped`, `unknown`, `info`, `stateset`, `gaugehistogram`.
    Other,
}

/// A line that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Reads the lines of a text; those that say nothing are left out.
pub fn lines(text: &str) -> impl Iterator<Item = Result<Line<'_>, Malformed>> {
    (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.trim_matches([' ', '\t', '\r']);
        let read = match line.strip_prefix('#') {
            _ if line.is_empty() => return None,
            Some(comment) => comment_line(comment).transpose()?,
            None => sample(line).map(Line::Sample),
        };
        Some(read.map_err(|reason| Malformed { line: number, reason }))
    })
}

type Parsed<T> = Result<T, &'static str>;

/// What stands behind `#`, if it is no mere comment.
fn comment_line(comment: &str) -> Parsed<Option<Line<'_>>> {
    let comment = comment.trim_start_matches([' ', '\t']);
    let is_type = match comment.split_once([' ', '\t']) {
        Some(("TYPE", _)) => true,
        Some(("HELP", _)) => false,
        _ => return Ok(None),
    };
    let mut rest = Rest(comment[4..].trim_start_matches([' ', '\t']));
    let name = match rest.0.starts_with('"') {
        true => rest.quoted()?,
        false => Cow::Borrowed(rest.until_blank()),
    };
    let text = rest.0.trim_start_matches([' ', '\t']);
    Ok(Some(match is_type {
        true => Line::Type { name, kind: Kind::of(text) },
        false => Line::Help { name, text },
    }))
}

fn sample(line: &str) -> Parsed<Sample<'_>> {
    let mut rest = Rest(line);
    let mut name = rest.name();
    let mut labels = Vec::new();
    if !rest.0.starts_with([' ', '\t', '{']) {
        return Err("no name that may stand there is followed by a value");
    }
    if rest.takes('{') {
        rest.labels(&mut name, &mut labels)?;
    }
    if name.is_empty() {
        return Err("it begins with no name");
    }
    rest.skip_blanks();
    let value = number(rest.until_blank()).ok_or("its value is no number")?;
    rest.skip_blanks();
    // A timestamp may follow, and an exemplar of OpenMetrics.
    let has_good_end = match rest.until_blank() {
        "" | "#" => true,
        timestamp => timestamp.parse::<f64>().is_ok(),
    };
    match has_good_end {
        true => Ok(Sample { name, labels, value }),
        false => Err("something stands behind its value"),
    }
}

/// A number as Go writes it.
fn number(text: &str) -> Option<f64> {
    // Rust also reads what no exporter writes: `infinity`, `nan`.
    text.parse().ok()
}

/// What is still to be read of a line.
struct Rest<'a>(&'a str);

// === impl Rest ===

impl<'a> Rest<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Takes this character, if it comes next.
    fn takes(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        match self.0.strip_prefix(wanted) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn until_blank(&mut self) -> &'a str {
        let end = self.0.find([' ', '\t']).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// A name of the old alphabet; empty where none stands here.
    fn name(&mut self) -> Cow<'a, str> {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
        let end = self.0.find(|letter| !is_part(letter)).unwrap_or(self.0.len());
        let end = if self.0.starts_with(|first: char| first.is_ascii_digit()) { 0 } else { end };
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        Cow::Borrowed(name)
    }

    /// What stands in quotes, without them.
    fn quoted(&mut self) -> Parsed<Cow<'a, str>> {
        const OPEN: &str = "a quotation mark is missing";
        let inside = self.0.strip_prefix('"').ok_or(OPEN)?;
        let mut is_escaped = false;
        let end = inside
            .find(|letter| {
                let ends = letter == '"' && !is_escaped;
                is_escaped = letter == '\\' && !is_escaped;
                ends
            })
            .ok_or(OPEN)?;
        self.0 = &inside[end + 1..];
        Ok(unescaped(&inside[..end]))
    }

    /// Labels up to the closing brace, among which the name may stand in quotes.
    fn labels(
        &mut self,
        name: &mut Cow<'a, str>,
        labels: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> Parsed<()> {
        while !self.takes('}') {
            let label = match self.0.starts_with('"') {
                true => self.quoted()?,
                false => self.name(),
            };
            if self.takes('=') {
                if label.is_empty() {
                    return Err("a label has no name");
                }
                self.skip_blanks();
                labels.push((label, self.quoted()?));
            } else if name.is_empty() && !label.is_empty() {
                *name = label;
            } else {
                return Err("a label has no value");
            }
            if !self.takes(',') && !self.0.starts_with('}') {
                return Err("its labels do not end");
            }
        }
        Ok(())
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, false) => plain.push(letter),
            _ => match letters.next() {
                Some('n') => plain.push('\n'),
                Some(other @ ('\\' | '"')) => plain.push(other),
                // Of others nobody says what they mean: as they stand.
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
        }
    }
    Cow::Owned(plain)
}

// === impl Sample ===

impl Sample<'_> {
    /// The value of a label, where it has that.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| &**value)
    }
}

// === impl Malformed ===

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Malformed {}

// === impl Kind ===

impl Kind {
    fn of(word: &str) -> Self {
        match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "summary" => Self::Summary,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Sample<'_> {
        match lines(line).next().expect("it says something").expect("it is good") {
            Line::Sample(sample) => sample,
            other => panic!("{other:?}"),
        }
    }

    fn labels<'a>(sample: &'a Sample<'_>) -> Vec<(&'a str, &'a str)> {
        sample.labels.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    #[test]
    fn a_sample_has_its_name_labels_and_value() {
        let line = r#"vllm:num_requests_waiting{engine="0",model_name="google/gemma-3"} 3.0"#;
        let sample = one(line);
        assert_eq!((&*sample.name, sample.value), ("vllm:num_requests_waiting", 3.0));
        assert_eq!(labels(&sample), [("engine", "0"), ("model_name", "google/gemma-3")]);
        assert_eq!(sample.label("engine"), Some("0"));
        assert!(matches!(sample.name, Cow::Borrowed(_)));
    }

    #[test]
    fn what_follows_a_value_is_read_over() {
        for line in [
            "up 1",
            "up\t1 1700000000000",
            "up 1 1700000000.5",
            "up  1 # {trace_id=\"a\"} 0.5 170.1",
            "up{} 1 170.1 # {trace_id=\"a b\"} 0.5",
            "up{ } 1\r",
        ] {
            assert_eq!((&*one(line).name, one(line).value), ("up", 1.0), "{line}");
        }
    }

    #[test]
    fn numbers_are_those_of_go() {
        let values = ["+Inf", "-Inf", "1e-05", "0x10", "NaN"];
        let lines = values.map(|value| format!("m {value}"));
        assert_eq!(one(&lines[0]).value, f64::INFINITY);
        assert_eq!(one(&lines[1]).value, f64::NEG_INFINITY);
        assert_eq!(one(&lines[2]).value, 1e-5);
        assert!(super::lines(&lines[3]).next().expect("a line").is_err());
        assert!(one(&lines[4]).value.is_nan());
    }

    #[test]
    fn values_of_labels_may_hold_anything() {
        let sample = one(r#"m{a="x, }=\" y",b="\\n\n\q",c="",} 1"#);
        assert_eq!(labels(&sample), [("a", "x, }=\" y"), ("b", "\\n\n\\q"), ("c", "")]);
    }

    #[test]
    fn a_name_may_stand_in_quotes() {
        let sample = one(r#"{"tidegate.calls", "http.status"="200"} 7"#);
        assert_eq!((&*sample.name, sample.value), ("tidegate.calls", 7.0));
        assert_eq!(labels(&sample), [("http.status", "200")]);
    }

    #[test]
    fn comments_say_kinds_and_meanings() {
        let text = "# TYPE a counter\n#  HELP a  how many \\n\n# a comment\n#\n# EOF\n# TYPE \"b c\" stateset\n";
        let read: Vec<_> = lines(text).map(|line| line.expect("it is good")).collect();
        assert_eq!(
            read,
            [
                Line::Type { name: "a".into(), kind: Kind::Counter },
                Line::Help { name: "a".into(), text: "how many \\n" },
                Line::Type { name: "b c".into(), kind: Kind::Other },
            ]
        );
    }

    #[test]
    fn a_malformed_line_is_named_and_spoils_no_other() {
        let text = "a 1\nb{c=\"d} 1\n{} 1\nb{c} 1\nb{=\"x\"} 1\nb{c=\"d\" e=\"f\"} 1\nb\nb x\nb 1 x\n1b 1\n<html>\nc 2\n";
        let read: Vec<_> = lines(text).collect();
        let bad: Vec<_> =
            read.iter().filter_map(|line| line.as_ref().err().map(|bad| bad.line)).collect();
        assert_eq!(bad, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let told = read[1].as_ref().expect_err("it is bad").to_string();
        assert_eq!(told, "line 2: a quotation mark is missing");
        assert!(matches!(&read[11], Ok(Line::Sample(sample)) if sample.name == "c"));
    }
}
