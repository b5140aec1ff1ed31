//! What was spent since the month began, by model and caller; what the month will come to; and how that
//! stands to the budget. Months are those of UTC.
//!
//! The forecast is what was spent so far, and for the rest of the month the mean of the last seven whole
//! days: a week knows its weekend. There is none before three whole days are known. Of a month whose
//! beginning the file does not know, `since` says what is covered.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};
use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Dollars;
use crate::export::rollup::Sums;
use crate::usage::{By, Period, groups};

/// Whole days that a forecast goes by, at most and at least.
const DAYS: i64 = 7;
const DAYS_NEEDED: i64 = 3;
/// Minutes of a day.
const DAY: i64 = 1_440;
/// For how long after its end a day may still be added to, in minutes.
const LATE: i64 = 60;

/// What may be spent in a month, in US dollars: nothing is refused by it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// By all together.
    pub total: Option<Dollars>,
    /// By each of these callers.
    pub callers: BTreeMap<String, Dollars>,
    /// On each of these models.
    pub models: BTreeMap<String, Dollars>,
}

/// Reckons it, and keeps in mind what days that are over came to.
#[derive(Debug, Default)]
pub(crate) struct Spend {
    days: BTreeMap<i64, Day>,
}

/// What a day came to, by model and caller.
type Day = Vec<(String, String, Sum)>;

/// What was spent on something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    cost_usd: f64,
    calls: u64,
    unpriced: u64,
}

/// The same of the month so far, and of the days that the forecast goes by.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    month: Sum,
    recent_usd: f64,
}

// === impl Spend ===

impl Spend {
    /// How it stands, by what this file holds.
    pub(crate) fn read(
        &mut self,
        connection: &Connection,
        budget: &BudgetConfig,
        now: Timestamp,
    ) -> rusqlite::Result<Value> {
        let minute = now.as_second().div_euclid(60);
        let today = minute.div_euclid(DAY);
        let date = now.to_zoned(TimeZone::UTC).date();
        let (first, end) = (day_of(date.first_of_month()), day_of(date.last_of_month()) + 1);
        let oldest: Option<i64> =
            connection.query_row("SELECT min(minute) FROM minutes", [], |row| row.get(0))?;
        let since = oldest.map(|oldest| time(oldest.max(first * DAY)).to_string());
        // The oldest day may have begun before its file.
        let oldest = oldest.map_or(today, |oldest| (oldest + DAY - 1).div_euclid(DAY));
        let recent = (today - DAYS).max(oldest)..today;
        let mut by: [BTreeMap<String, Spent>; 3] = Default::default();
        for day in first.min(recent.start)..=today {
            let is_recent = recent.contains(&day);
            for (model, caller, sum) in self.day(connection, day, minute)? {
                for (by, name) in by.iter_mut().zip(["", model, caller]) {
                    let spent = by.entry(name.to_owned()).or_default();
                    if day >= first {
                        spent.month.add(sum);
                    }
                    spent.recent_usd += if is_recent { sum.cost_usd } else { 0.0 };
                }
            }
        }
        // One that was not over may have been added to since.
        self.days.retain(|day, _| *day >= first - DAYS && is_over(*day, minute));
        let days = (recent.end - recent.start).max(0);
        let left = (end * DAY - minute) as f64 / DAY as f64;
        let forecast = |spent: &Spent| {
            let a_day = spent.recent_usd / days as f64;
            (days >= DAYS_NEEDED).then_some(spent.month.cost_usd + left * a_day)
        };
        let [total, models, callers] = by;
        let total = total.get("").copied().unwrap_or_default();
        let list = |word: &str, spent: &BTreeMap<String, Spent>, budgets: &BTreeMap<_, _>| {
            let mut all: Vec<_> = spent.iter().filter(|(_, spent)| spent.month.calls > 0).collect();
            all.sort_by(|(_, one), (_, other)| other.month.cost_usd.total_cmp(&one.month.cost_usd));
            let entries = all.into_iter().map(|(name, spent)| {
                let mut entry = spent.json(forecast(spent), budgets.get(name).copied());
                entry[word] = name.as_str().into();
                entry
            });
            entries.collect::<Value>()
        };
        Ok(json!({
            "month": date.strftime("%Y-%m").to_string(),
            "time_zone": "UTC",
            "since": since,
            "until": now.to_string(),
            "forecast_from_days": days,
            "total": total.json(forecast(&total), budget.total),
            "models": list("model", &models, &budget.models),
            "callers": list("caller", &callers, &budget.callers),
        }))
    }

    /// What a day came to; read once where it is over.
    fn day(&mut self, connection: &Connection, day: i64, now: i64) -> rusqlite::Result<&Day> {
        if !is_over(day, now) || !self.days.contains_key(&day) {
            let period = Period::between(day * DAY, (day + 1) * DAY);
            let groups = groups(connection, &[By::Model, By::Caller], period, false)?;
            let entries = groups.into_iter().map(|(names, sums)| {
                let mut names = names.into_iter();
                let mut name = || names.next().unwrap_or_default();
                let Sums { cost_usd, calls, unpriced, .. } = sums;
                (name(), name(), Sum { cost_usd, calls, unpriced })
            });
            self.days.insert(day, entries.collect());
        }
        Ok(&self.days[&day])
    }
}

/// When a minute begins.
fn time(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap_or_default()
}

/// Whether nothing is added to a day any more.
fn is_over(day: i64, now: i64) -> bool {
    now >= (day + 1) * DAY + LATE
}

/// In days since 1970.
fn day_of(date: Date) -> i64 {
    let start = date.to_zoned(TimeZone::UTC).expect("a day of UTC begins at midnight");
    start.timestamp().as_second().div_euclid(86_400)
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, other: &Self) {
        self.cost_usd += other.cost_usd;
        self.calls += other.calls;
        self.unpriced += other.unpriced;
    }
}

// === impl Spent ===

impl Spent {
    fn json(&self, forecast: Option<f64>, budget: Option<Dollars>) -> Value {
        let share = |dollars: f64| budget.map(|budget| dollars / budget.amount());
        json!({
            "cost_usd": self.month.cost_usd,
            "calls": self.month.calls,
            "unpriced_calls": self.month.unpriced,
            "forecast_usd": forecast,
            "budget_usd": budget.map(Dollars::amount),
            "used_ratio": share(self.month.cost_usd),
            "forecast_ratio": forecast.and_then(share),
        })
    }
}

#[cfg(test)]
mod tests;
