use super::*;
use crate::export::history::written;

/// A call of this model and caller that cost a dollar, at this time.
fn dollar(model: &str, caller: &str, time: &str) -> (i64, String, String, f64) {
    let time: Timestamp = time.parse().expect("a time");
    (time.as_second().div_euclid(60), model.to_owned(), caller.to_owned(), 1.0)
}

fn read(calls: &[(i64, String, String, f64)], budget: &str, now: &str) -> Value {
    let budget: BudgetConfig = crate::config::parse_yaml(budget).expect("a budget");
    let connection = written(calls);
    let now = now.parse().expect("a time");
    Spend::default().read(&connection, &budget, now).expect("it is read")
}

#[test]
fn a_month_is_what_was_spent_and_what_is_to_come() {
    // Two dollars a day for the eight days before the tenth, and one before the month.
    let mut calls: Vec<_> = (2..10)
        .flat_map(|day| {
            let time = format!("2026-11-{day:02}T12:00:00Z");
            [dollar("gemma", "a", &time), dollar("claude", "b", &time)]
        })
        .collect();
    calls.push(dollar("gemma", "a", "2026-10-30T12:00:00Z"));
    let budget = "total: 32\ncallers: { a: 10 }\n";
    let spend = read(&calls, budget, "2026-11-10T00:00:00Z");
    let total = &spend["total"];
    assert_eq!((&spend["month"], &total["cost_usd"]), (&json!("2026-11"), &json!(16.0)));
    // Of 21 days that are left, each as the last seven.
    assert_eq!(total["forecast_usd"], 16.0 + 21.0 * 2.0);
    assert_eq!(total["used_ratio"], 0.5);
    let caller = &spend["callers"][0];
    assert_eq!((&caller["caller"], &caller["budget_usd"]), (&json!("a"), &json!(10.0)));
    assert_eq!(caller["forecast_ratio"], (8.0 + 21.0) / 10.0);
    assert_eq!(spend["models"].as_array().map(Vec::len), Some(2));
    assert_eq!(spend["models"][0]["budget_usd"], Value::Null);
}

#[test]
fn there_is_no_forecast_of_two_days() {
    let calls = [dollar("gemma", "", "2026-11-01T00:00:00Z")];
    assert_eq!(
        read(&calls, "total: 1", "2026-11-03T10:00:00Z")["total"]["forecast_usd"],
        json!(null)
    );
    let spend = read(&calls, "total: 1", "2026-11-04T00:00:00Z");
    assert_eq!(spend["total"]["forecast_usd"], 1.0 + 27.0 / 3.0);
}

#[test]
fn a_day_that_was_not_over_when_it_was_read_is_read_again() {
    let mut spend = Spend::default();
    let mut total = |calls: &[_], now: &str| {
        let now = now.parse().expect("a time");
        let read = spend.read(&written(calls), &BudgetConfig::default(), now);
        read.expect("it is read")["total"]["cost_usd"].clone()
    };
    let mut calls = vec![dollar("gemma", "a", "2026-11-09T08:00:00Z")];
    assert_eq!(total(&calls, "2026-11-09T09:00:00Z"), 1.0);
    calls.push(dollar("gemma", "a", "2026-11-09T20:00:00Z"));
    assert_eq!(total(&calls, "2026-11-10T00:30:00Z"), 2.0, "the day is over");
    calls.push(dollar("gemma", "a", "2026-11-09T23:59:00Z"));
    assert_eq!(total(&calls, "2026-11-11T00:00:00Z"), 3.0, "some of it came late");
    calls.clear();
    assert_eq!(total(&calls, "2026-11-11T00:01:00Z"), 3.0, "what is over is read once");
}

#[test]
fn a_month_that_is_not_known_from_its_beginning_says_so() {
    let calls = [dollar("gemma", "a", "2026-11-14T12:30:00Z")];
    let since = |calls: &[_], now| read(calls, "total: 1", now)["since"].clone();
    assert_eq!(since(&calls, "2026-11-30T00:00:00Z"), "2026-11-14T12:30:00Z");
    assert_eq!(since(&calls, "2026-12-02T00:00:00Z"), "2026-12-01T00:00:00Z");
    assert_eq!(since(&[], "2026-12-02T00:00:00Z"), Value::Null, "nothing is known");
}
