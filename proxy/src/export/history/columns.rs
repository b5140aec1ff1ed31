//! How what calls came to stands in the columns of a file.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

use super::super::rollup::{Saved, Sums, Times, Tokens};

/// Counts, in the order of [`counts`].
pub(crate) const COUNTS: [&str; 21] = [
    "calls",
    "completed",
    "failed",
    "truncated",
    "refused",
    "abandoned",
    "errors",
    "judged",
    "streams",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "unpriced",
    "usage_absent",
    "saved_calls",
    "saved_input_tokens",
    "saved_output_tokens",
    "jobs",
    "jobs_good",
];
/// The most that one row holds: so many rows together stay far from where SQLite's own sums end.
const MOST: u64 = 1 << 40;
/// Sums of money.
const MONEY: [&str; 2] = ["cost_usd", "saved_cost_usd"];
/// What only a function of ours adds up, and that function.
const OTHERS: [(&str, &str); 4] = [
    ("statuses", "add_statuses"),
    ("duration_of_streams", "add_times"),
    ("duration_of_others", "add_times"),
    ("first_token", "add_times"),
];

/// Distributions are bytes, in SQL.
struct Bytes(Times);

/// A file that holds what we never write.
#[derive(Debug, thiserror::Error)]
#[error("a distribution or a list of statuses cannot be read")]
struct Unreadable;

/// Adds one row to what stands there.
pub(super) fn upsert() -> String {
    let names = || COUNTS.into_iter().chain(MONEY);
    let others = OTHERS.map(|(name, _)| name);
    let all = ["minute", "series"].into_iter().chain(names()).chain(others);
    let all: Vec<_> = all.collect();
    let places: Vec<_> = (1..=all.len()).map(|number| format!("?{number}")).collect();
    let added = names().map(|name| format!("{name} = {name} + excluded.{name}"));
    let merged = OTHERS.map(|(name, add)| format!("{name} = {add}({name}, excluded.{name})"));
    format!(
        "INSERT INTO minutes ({}) VALUES ({}) ON CONFLICT (minute, series) DO UPDATE SET {}",
        all.join(", "),
        places.join(", "),
        added.chain(merged).collect::<Vec<_>>().join(", ")
    )
}

/// The values that [`upsert`] takes.
pub(super) fn write(
    statement: &mut rusqlite::Statement<'_>,
    minute: i64,
    series: i64,
    sums: &Sums,
) -> rusqlite::Result<usize> {
    let counts = counts(sums).map(|count| count.min(MOST) as i64);
    let money = [sums.cost_usd, sums.saved.cost_usd];
    let statuses = statuses_text(&sums.statuses);
    let times = [&sums.duration_of_streams, &sums.duration_of_others, &sums.first_token];
    let [of_streams, of_others, first_token] = times.map(times_bytes);
    let head: [&dyn ToSql; 2] = [&minute, &series];
    let tail: [&dyn ToSql; 4] = [&statuses, &of_streams, &of_others, &first_token];
    let counts = counts.iter().map(|count| count as &dyn ToSql);
    let money = money.iter().map(|money| money as &dyn ToSql);
    statement.execute(params_from_iter(head.into_iter().chain(counts).chain(money).chain(tail)))
}

/// What adds rows up, in the order in which [`read`] takes it.
pub(crate) fn totals(with_times: bool) -> String {
    let sums = COUNTS.into_iter().chain(MONEY).map(|name| format!("sum({name})"));
    let merged = OTHERS.iter().filter(|_| with_times);
    sums.chain(merged.map(|(name, add)| format!("{add}({name})"))).collect::<Vec<_>>().join(", ")
}

/// What calls came to, by what [`totals`] gave from this column on.
pub(crate) fn read(row: &Row<'_>, from: usize, with_times: bool) -> rusqlite::Result<Sums> {
    let mut counts = [0; COUNTS.len()];
    for (at, count) in counts.iter_mut().enumerate() {
        *count = row.get::<_, i64>(from + at)?.max(0) as u64;
    }
    let mut sums = of_counts(counts);
    let from = from + COUNTS.len();
    sums.cost_usd = row.get(from)?;
    sums.saved.cost_usd = row.get(from + 1)?;
    if with_times {
        sums.statuses = statuses_of(&row.get::<_, String>(from + 2)?).unwrap_or_default();
        sums.duration_of_streams = row.get::<_, Bytes>(from + 3)?.0;
        sums.duration_of_others = row.get::<_, Bytes>(from + 4)?.0;
        sums.first_token = row.get::<_, Bytes>(from + 5)?.0;
    }
    Ok(sums)
}

/// Has a connection know how distributions and statuses add up: `add_times(a, b)` and
/// `add_statuses(a, b)` of two, and of all rows of a group with one argument.
pub(crate) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("add_times", 2, flags, |context| {
        let mut times = context.get::<Bytes>(0)?.0;
        times.merge(&context.get::<Bytes>(1)?.0);
        Ok(times_bytes(&times))
    })?;
    connection.create_scalar_function("add_statuses", 2, flags, |context| {
        let mut sums = Sums::default();
        add_statuses(&mut sums, context)?;
        let other = statuses_of(context.get_raw(1).as_str()?).ok_or_else(unreadable)?;
        sums.merge(&Sums { statuses: other, ..Sums::default() });
        Ok(statuses_text(&sums.statuses))
    })?;
    connection.create_aggregate_function("add_times", 1, flags, AllTimes)?;
    connection.create_aggregate_function("add_statuses", 1, flags, AllStatuses)
}

/// Adds the distributions of a group.
struct AllTimes;
/// Adds the statuses of a group.
struct AllStatuses;

impl Aggregate<Times, Vec<u8>> for AllTimes {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Times> {
        Ok(Times::default())
    }

    fn step(&self, context: &mut Context<'_>, times: &mut Times) -> rusqlite::Result<()> {
        times.merge(&context.get::<Bytes>(0)?.0);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, times: Option<Times>) -> rusqlite::Result<Vec<u8>> {
        Ok(times_bytes(&times.unwrap_or_default()))
    }
}

impl Aggregate<Sums, String> for AllStatuses {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Sums> {
        Ok(Sums::default())
    }

    fn step(&self, context: &mut Context<'_>, sums: &mut Sums) -> rusqlite::Result<()> {
        add_statuses(sums, context)
    }

    fn finalize(&self, _: &mut Context<'_>, sums: Option<Sums>) -> rusqlite::Result<String> {
        Ok(statuses_text(&sums.unwrap_or_default().statuses))
    }
}

fn add_statuses(sums: &mut Sums, context: &Context<'_>) -> rusqlite::Result<()> {
    let statuses = statuses_of(context.get_raw(0).as_str()?).ok_or_else(unreadable)?;
    sums.merge(&Sums { statuses, ..Sums::default() });
    Ok(())
}

fn unreadable() -> rusqlite::Error {
    rusqlite::Error::UserFunctionError(Box::new(Unreadable))
}

fn counts(sums: &Sums) -> [u64; COUNTS.len()] {
    let [completed, failed, truncated, refused, abandoned] = sums.outcomes;
    [
        sums.calls,
        completed,
        failed,
        truncated,
        refused,
        abandoned,
        sums.errors,
        sums.judged,
        sums.streams,
        sums.tokens.input,
        sums.tokens.output,
        sums.tokens.cache_read,
        sums.tokens.cache_creation,
        sums.tokens.reasoning,
        sums.unpriced,
        sums.usage_absent,
        sums.saved.calls,
        sums.saved.input_tokens,
        sums.saved.output_tokens,
        sums.jobs,
        sums.jobs_good,
    ]
}

fn of_counts(counts: [u64; COUNTS.len()]) -> Sums {
    let [calls, completed, failed, truncated, refused, abandoned, rest @ ..] = counts;
    let [errors, judged, streams, input, output, cache_read, cache_creation, rest @ ..] = rest;
    let [reasoning, unpriced, usage_absent, saved_calls, saved_input, saved_output, rest @ ..] =
        rest;
    let [jobs, jobs_good] = rest;
    Sums {
        calls,
        outcomes: [completed, failed, truncated, refused, abandoned],
        errors,
        judged,
        streams,
        tokens: Tokens { input, output, cache_read, cache_creation, reasoning },
        unpriced,
        usage_absent,
        saved: Saved {
            calls: saved_calls,
            input_tokens: saved_input,
            output_tokens: saved_output,
            cost_usd: 0.0,
        },
        jobs,
        jobs_good,
        ..Sums::default()
    }
}

/// As JSON, which SQLite reads: `{"200":12,"429":1}`.
fn statuses_text(statuses: &[(u16, u64)]) -> String {
    let entries = statuses.iter().map(|(status, count)| format!("\"{status}\":{count}"));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

fn statuses_of(text: &str) -> Option<Vec<(u16, u64)>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let entry = |entry: &str| {
        let (status, count) = entry.split_once(':')?;
        Some((status.trim_matches('"').parse().ok()?, count.parse().ok()?))
    };
    let mut statuses: Vec<_> =
        inner.split(',').filter(|text| !text.is_empty()).map(entry).collect::<Option<_>>()?;
    statuses.sort_unstable();
    Some(statuses)
}

// === impl Bytes ===

/// The buckets in order, each as two numbers: by how many milliseconds it lies above the one before,
/// and how many times it holds. Numbers are as in protobuf: seven bits a byte, the lowest first.
fn times_bytes(times: &Times) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 * times.buckets().len());
    let mut before = 0;
    for (ms, count) in times.buckets() {
        push(&mut bytes, ms - before);
        push(&mut bytes, count);
        before = ms;
    }
    bytes
}

fn push(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn next(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return number.try_into().ok();
        }
    }
    None
}

fn times_of(mut bytes: &[u8]) -> Option<Times> {
    let (mut buckets, mut ms) = (Vec::new(), 0_u32);
    while !bytes.is_empty() {
        ms = ms.checked_add(next(&mut bytes)?)?;
        buckets.push((ms, next(&mut bytes)?));
    }
    Some(Times::of_buckets(buckets))
}

impl FromSql for Bytes {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        times_of(value.as_blob()?).map(Self).ok_or_else(|| FromSqlError::other(Unreadable))
    }
}

impl ToSql for Bytes {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(times_bytes(&self.0).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_comes_back_from_its_bytes() {
        let times = Times::of_buckets([(0, 1), (300, 200), (3_588_096, u32::MAX)]);
        assert_eq!(times_of(&times_bytes(&times)), Some(times));
        assert_eq!(times_of(&[0x80]), None, "a number is cut off");
        assert_eq!(times_of(&[1]), None, "a count is missing");
        assert_eq!(times_of(&[0xff, 0xff, 0xff, 0xff, 0x7f, 1]), None, "a number is too large");
    }

    #[test]
    fn statuses_come_back_from_their_text() {
        let statuses = vec![(0, 1), (200, 12), (429, 3)];
        assert_eq!(statuses_of(&statuses_text(&statuses)), Some(statuses));
        assert_eq!(statuses_of("{}"), Some(Vec::new()));
        assert_eq!(statuses_of("[200]"), None);
    }
}
