//! What calls came to over a span of time, by model, caller, hour, ..., as a history file tells.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use jiff::{Timestamp, civil, tz::TimeZone};
use rusqlite::Connection;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::Value;

use crate::export::history::{self, Error, columns};
use crate::export::rollup::Sums;

/// Seconds of a minute.
const MINUTE_S: i64 = 60;

/// What calls are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum By {
    Model,
    Provider,
    Region,
    Route,
    Upstream,
    Caller,
    Month,
    Day,
    Hour,
    Minute,
}

/// A span of time in whole minutes, from the first of these to before the second, in minutes since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    since: i64,
    until: i64,
}

/// What calls came to, by what was asked.
#[derive(Clone, Debug)]
pub struct Usage {
    by: Vec<By>,
    period: Period,
    rows: Vec<Row>,
    total: Figures,
}

/// One line of it.
#[derive(Clone, Debug)]
struct Row {
    names: Vec<String>,
    figures: Figures,
}

/// What stands on one line.
#[derive(Clone, Debug, Default)]
struct Figures(Sums);

/// A word or a time that cannot be read, and what could.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// A figure: its name, and how it is read.
type Column = (&'static str, fn(&Sums) -> Number);

/// A number as it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Count(u64),
    Dollars(f64),
    Seconds(Option<f64>),
    Ratio(Option<f64>),
}

/// All figures, in the order in which they are shown.
const COLUMNS: &[Column] = &[
    ("calls", |sums| Number::Count(sums.calls)),
    ("errors", |sums| Number::Count(sums.errors)),
    ("error_ratio", |sums| Number::Ratio(sums.error_ratio())),
    ("input_tokens", |sums| Number::Count(sums.tokens.input)),
    ("output_tokens", |sums| Number::Count(sums.tokens.output)),
    ("cost_usd", |sums| Number::Dollars(sums.cost_usd)),
    ("unpriced_calls", |sums| Number::Count(sums.unpriced)),
    ("duration_p50_s", |sums| Number::Seconds(sums.duration().quantile(0.5))),
    ("duration_p90_s", |sums| Number::Seconds(sums.duration().quantile(0.9))),
    ("duration_p99_s", |sums| Number::Seconds(sums.duration().quantile(0.99))),
    ("first_token_p50_s", |sums| Number::Seconds(sums.first_token.quantile(0.5))),
    ("first_token_p99_s", |sums| Number::Seconds(sums.first_token.quantile(0.99))),
];

/// What a table has no room for.
const MORE: &[Column] = &[
    ("completed", |sums| Number::Count(sums.outcomes[0])),
    ("failed", |sums| Number::Count(sums.outcomes[1])),
    ("truncated", |sums| Number::Count(sums.outcomes[2])),
    ("refused", |sums| Number::Count(sums.outcomes[3])),
    ("abandoned", |sums| Number::Count(sums.outcomes[4])),
    ("streams", |sums| Number::Count(sums.streams)),
    ("cache_read_tokens", |sums| Number::Count(sums.tokens.cache_read)),
    ("cache_creation_tokens", |sums| Number::Count(sums.tokens.cache_creation)),
    ("reasoning_tokens", |sums| Number::Count(sums.tokens.reasoning)),
    ("usage_absent_calls", |sums| Number::Count(sums.usage_absent)),
    ("saved_calls", |sums| Number::Count(sums.saved.calls)),
    ("saved_cost_usd", |sums| Number::Dollars(sums.saved.cost_usd)),
    ("jobs", |sums| Number::Count(sums.jobs)),
    ("jobs_good", |sums| Number::Count(sums.jobs_good)),
];

// === impl By ===

impl By {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Model,
        Self::Provider,
        Self::Region,
        Self::Route,
        Self::Upstream,
        Self::Caller,
        Self::Month,
        Self::Day,
        Self::Hour,
        Self::Minute,
    ];

    /// Its word, which is its column in the view `usage`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Region => "region",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Caller => "caller",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Minute => "time",
            by => by.as_str(),
        }
    }

    fn is_time(self) -> bool {
        matches!(self, Self::Month | Self::Day | Self::Hour | Self::Minute)
    }
}

impl FromStr for By {
    type Err = Unreadable;

    fn from_str(word: &str) -> Result<Self, Unreadable> {
        Self::ALL.into_iter().find(|by| by.as_str() == word).ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            Unreadable(format!("`{word}` is none of {words}"))
        })
    }
}

// === impl Period ===

impl Period {
    /// From one time to another, to the minute: one that is begun counts whole.
    pub fn new(since: Timestamp, until: Timestamp) -> Result<Self, Unreadable> {
        let begun = until.as_second() + MINUTE_S - 1;
        let period = Self {
            since: since.as_second().div_euclid(MINUTE_S),
            until: begun.div_euclid(MINUTE_S),
        };
        if since > until {
            let message = format!("{since} is after {until}: nothing lies between them");
            return Err(Unreadable(message));
        }
        Ok(period)
    }

    /// From this minute to before that one.
    pub(crate) fn between(since: i64, until: i64) -> Self {
        Self { since, until }
    }

    fn shown(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * MINUTE_S).unwrap_or_default()
    }
}

/// A point in time: a length before now, such as `30d`; a day or a time (UTC), such as `2026-11-01` or
/// `2026-11-01T08:00`; a whole timestamp; `today` or `month`, for when they began.
pub fn point(text: &str, now: Timestamp) -> Result<Timestamp, Unreadable> {
    let utc =
        |time: civil::DateTime| time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    let today = now.to_zoned(TimeZone::UTC).date();
    let read = match text {
        "now" => Some(now),
        "today" => utc(today.to_datetime(civil::Time::midnight())),
        "month" => utc(today.first_of_month().to_datetime(civil::Time::midnight())),
        _ => None,
    };
    let read = read.or_else(|| length(text).and_then(|length| now.checked_sub(length).ok()));
    let read = read.or_else(|| text.parse::<Timestamp>().ok());
    let read = read.or_else(|| text.parse::<civil::DateTime>().ok().and_then(utc));
    read.ok_or_else(|| {
        Unreadable(format!(
            "`{text}` is no point in time; write how long ago, such as 30d or 12h, or a day or time \
             (UTC), such as 2026-11-01 or 2026-11-01T08:00, or today, or month"
        ))
    })
}

/// A length of time whose days and weeks have 24 hours a day.
fn length(text: &str) -> Option<jiff::SignedDuration> {
    let span: jiff::Span = text.parse().ok()?;
    if span.is_negative() || span.get_months() != 0 || span.get_years() != 0 {
        return None;
    }
    let days = i64::from(span.get_days()) + 7 * i64::from(span.get_weeks());
    let rest = span.days(0).weeks(0).to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    rest.checked_add(jiff::SignedDuration::from_hours(days.checked_mul(24)?))
}

// === impl Usage ===

impl Usage {
    /// Reads it from a file, while sidecars may write to that.
    pub fn read(path: &Path, by: &[By], period: Period) -> Result<Self, Error> {
        let connection = history::open_to_read(path)?;
        let groups = groups(&connection, by, period, true).map_err(history::failed(path))?;
        Ok(Self::of(groups, by, period))
    }

    /// The same, in no more rows than so many; absent where there would be more.
    pub(crate) fn read_some(
        path: &Path,
        by: &[By],
        period: Period,
        most: usize,
    ) -> Result<Option<Self>, Error> {
        let connection = history::open_to_read(path)?;
        let groups = some_groups(&connection, by, period, true, Some(most + 1));
        let groups = groups.map_err(history::failed(path))?;
        Ok((groups.len() <= most).then(|| Self::of(groups, by, period)))
    }

    fn of(groups: Vec<(Vec<String>, Sums)>, by: &[By], period: Period) -> Self {
        let mut total = Sums::default();
        groups.iter().for_each(|(_, sums)| total.merge(sums));
        let rows = groups.into_iter().map(|(names, sums)| Row { names, figures: Figures(sums) });
        Self { by: by.to_vec(), period, rows: rows.collect(), total: Figures(total) }
    }

    /// Whether no call fell into the period.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As lines of comma-separated values, with a head.
    pub fn csv(&self) -> String {
        let columns = COLUMNS.iter().chain(MORE);
        let names = self.by.iter().map(|by| by.as_str().to_owned());
        let head = names.chain(columns.clone().map(|(name, _)| (*name).to_owned()));
        let mut text = head.collect::<Vec<_>>().join(",") + "\n";
        for row in &self.rows {
            let names = row.names.iter().map(|name| quoted(name));
            let figures = columns.clone().map(|(_, read)| read(&row.figures.0).plain());
            text += &(names.chain(figures).collect::<Vec<_>>().join(",") + "\n");
        }
        text
    }

    fn row(&self, row: &Row) -> Value {
        let mut value = row.figures.json();
        for (by, name) in self.by.iter().zip(&row.names) {
            value[by.as_str()] = name.as_str().into();
        }
        value
    }
}

/// As JSON: the period, a row for each, and all together. Row by row: as one value many would take much
/// room.
impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Rows<'a>(&'a Usage);

        impl Serialize for Rows<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.rows.iter().map(|row| self.0.row(row)))
            }
        }

        let Self { by, period, total, .. } = self;
        let mut all = serializer.serialize_struct("usage", 5)?;
        all.serialize_field("since", &Period::shown(period.since).to_string())?;
        all.serialize_field("until", &Period::shown(period.until).to_string())?;
        all.serialize_field("by", &by.iter().map(|by| by.as_str()).collect::<Vec<_>>())?;
        all.serialize_field("rows", &Rows(self))?;
        all.serialize_field("total", &total.json())?;
        all.end()
    }
}

/// As a table for people; all together on its last line.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.by.iter().map(|by| by.as_str().to_owned());
        let head = names.chain(COLUMNS.iter().map(|(name, _)| name.replace('_', " ")));
        let mut lines: Vec<Vec<String>> = vec![head.collect()];
        for row in &self.rows {
            let names = row.names.iter().map(|name| or_dash(name));
            lines.push(names.chain(row.figures.table()).collect());
        }
        if !self.by.is_empty() && self.rows.len() > 1 {
            let mut names = vec![String::new(); self.by.len()];
            names[0] = "all".to_owned();
            lines.push(names.into_iter().chain(self.total.table()).collect());
        }
        write_aligned(f, &lines, self.by.len())
    }
}

fn or_dash(name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { name.to_owned() }
}

/// Names to the left, figures to the right.
fn write_aligned(f: &mut fmt::Formatter<'_>, lines: &[Vec<String>], names: usize) -> fmt::Result {
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
    for line in lines {
        let mut text = String::new();
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text +=
                &if at < names { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

/// What each group of calls came to: by time, else the dearest first, then the most calls.
pub(crate) fn groups(
    connection: &Connection,
    by: &[By],
    period: Period,
    with_times: bool,
) -> rusqlite::Result<Vec<(Vec<String>, Sums)>> {
    some_groups(connection, by, period, with_times, None)
}

/// The same, of the first so many.
fn some_groups(
    connection: &Connection,
    by: &[By],
    period: Period,
    with_times: bool,
    most: Option<usize>,
) -> rusqlite::Result<Vec<(Vec<String>, Sums)>> {
    let names: Vec<_> = by.iter().map(|by| by.column()).collect();
    let select = names.iter().map(|name| format!("{name}, ")).collect::<String>();
    let group = match names.is_empty() {
        true => "HAVING count(*) > 0".to_owned(),
        false => format!("GROUP BY {}", names.join(", ")),
    };
    let times = by.iter().filter(|by| by.is_time()).map(|by| by.column());
    let order = times.chain(["sum(cost_usd) DESC", "sum(calls) DESC"]);
    let order = order.chain(names.iter().copied()).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT {select}{} FROM usage WHERE minute >= ?1 AND minute < ?2 {group} ORDER BY {order}
         LIMIT ?3",
        columns::totals(with_times)
    );
    // Below nought there is no limit.
    let most = most.and_then(|most| i64::try_from(most).ok()).unwrap_or(-1);
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([period.since, period.until, most], |row| {
        let names = (0..by.len()).map(|at| row.get(at)).collect::<Result<_, _>>()?;
        Ok((names, columns::read(row, by.len(), with_times)?))
    })?;
    rows.collect()
}

// === impl Figures ===

impl Figures {
    fn table(&self) -> impl Iterator<Item = String> {
        COLUMNS.iter().map(|(_, read)| read(&self.0).shown())
    }

    fn json(&self) -> Value {
        let figures = COLUMNS.iter().chain(MORE);
        let mut value: Value =
            figures.map(|(name, read)| ((*name).to_owned(), read(&self.0).json())).collect();
        let statuses = self.0.statuses.iter().map(|(status, count)| (status.to_string(), *count));
        value["statuses"] = statuses.map(|(status, count)| (status, Value::from(count))).collect();
        value
    }
}

// === impl Number ===

impl Number {
    /// For people.
    fn shown(self) -> String {
        match self {
            Self::Count(count) => grouped(count),
            Self::Dollars(dollars) => format!("{dollars:.2}"),
            Self::Seconds(Some(seconds)) => format!("{seconds:.3}"),
            Self::Ratio(Some(ratio)) => format!("{:.2}%", ratio * 100.0),
            Self::Seconds(None) | Self::Ratio(None) => "-".to_owned(),
        }
    }

    /// For programs; nothing where there is none.
    fn plain(self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Dollars(number) => number.to_string(),
            Self::Seconds(number) | Self::Ratio(number) => {
                number.map_or_else(String::new, |number| number.to_string())
            }
        }
    }

    fn json(self) -> Value {
        match self {
            Self::Count(count) => count.into(),
            Self::Dollars(number) => number.into(),
            Self::Seconds(number) | Self::Ratio(number) => number.into(),
        }
    }
}

/// With a blank between thousands.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let parts = parts.iter().map(|part| std::str::from_utf8(part).expect("digits"));
    parts.collect::<Vec<_>>().join(" ")
}

/// One field of a line of comma-separated values (RFC 4180). What a spreadsheet would take for a formula
/// begins with a quote.
fn quoted(field: &str) -> String {
    let is_formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let field = if is_formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field
}

#[cfg(test)]
mod tests;
