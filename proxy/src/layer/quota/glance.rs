//! What the admin address shows of quotas: as a table to look at, and as JSON.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::Quotas;
use super::amounts::Kind;
use super::config::Mode;
use super::line::Line;

/// Lines that are shown: those that are used most.
const LINES: usize = 200;

// === impl Quotas ===

impl Quotas {
    /// How the budgets of each quota stand, as the admin address shows it: those that are used most,
    /// and no more than can be looked at.
    pub(super) fn state(&self, quota: &str) -> Json {
        let lines = self.lines();
        let lines = lines.iter().filter(|line| &*line.quota == quota).take(LINES);
        let tallies = self.kept.budgets.tallies(&self.rules);
        let tally = tallies.iter().find(|(name, ..)| &**name == quota);
        let counts = tally.map(|(_, tally, budgets)| {
            let refused = |mode: Mode| {
                tally.refusals.values().flat_map(|by_mode| by_mode[mode as usize]).sum::<u64>()
            };
            json!({
                "budgets": budgets,
                "without_room": tally.overflowed,
                "refused": refused(Mode::Enforce),
                "would_have_refused": refused(Mode::Observe),
            })
        });
        let mut state = counts.unwrap_or_else(|| json!({}));
        let rule = self.rules.iter().find(|rule| &*rule.name == quota);
        if let Some(rule) = rule {
            state["mode"] = rule.mode.as_str().into();
            state["window"] = rule.window.to_string().into();
        }
        state["most_used"] = lines.map(Line::state).collect();
        state
    }

    /// How all budgets stand, as a table: those that are used most.
    pub(crate) fn glance(&self) -> String {
        let lines = self.lines();
        let head = ["quota", "whose", "of", "used", "held", "limit", "gone", ""].map(str::to_owned);
        let rows = lines.iter().take(LINES).map(Line::row);
        let mut table = table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
        let more = lines.len().saturating_sub(LINES);
        if lines.is_empty() {
            table.push_str("nothing is used\n");
        } else if more > 0 {
            _ = writeln!(table, "and {more} more of which less is gone");
        }
        table
    }
}

/// Cells of one row.
type Row = [String; 8];

/// Columns as wide as they must be.
fn table(rows: &[Row]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or_default();
            _ = write!(line, "{cell:width$}  ");
        }
        _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A time in the largest unit of which there are two: `90 min`.
fn about(seconds: f64) -> String {
    let units = [("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)];
    let unit = units.into_iter().find(|(_, unit)| seconds >= 2.0 * unit).unwrap_or(("s", 1.0));
    format!("{} {}", (seconds / unit.1).round(), unit.0)
}

// === impl Line ===

impl Line {
    fn row(&self) -> Row {
        let names = [&self.caller, &self.model, &self.upstream];
        let names: Vec<&str> = names.into_iter().filter_map(|name| name.as_deref()).collect();
        let whose = match (self.is_common, names.is_empty()) {
            (true, _) => "all without room".to_owned(),
            (false, true) => "all".to_owned(),
            // Callers choose some of these names.
            (false, false) => {
                names.join(" ").chars().filter(|c| !c.is_control()).take(80).collect()
            }
        };
        let units = |amount| match self.kind {
            Kind::Cost => format!("{:.4}", self.kind.units(amount)),
            _ => self.kind.units(amount).to_string(),
        };
        let when = [("spent in", self.exhausted_in_s), ("anew in", self.renewed_in_s)];
        let when = when.into_iter().filter_map(|(word, seconds)| {
            Some(format!("{word} {}", about(seconds.filter(|seconds| *seconds > 0.0)?)))
        });
        let (used, held, limit) = (units(self.used), units(self.held), units(self.limit));
        let gone = format!("{:.0} %", self.ratio() * 100.0);
        let when = when.collect::<Vec<_>>().join(", ");
        let (quota, of) = (self.quota.to_string(), self.kind.as_str().to_owned());
        [quota, whose, of, used, held, limit, gone, when]
    }

    fn state(&self) -> Json {
        let amount = |amount: u64| match self.kind {
            Kind::Cost => json!(self.kind.units(amount)),
            _ => json!(amount),
        };
        let mut state = json!({
            "of": self.kind.as_str(),
            "limit": amount(self.limit),
            "used": amount(self.used),
            "held": amount(self.held),
            "percent": (self.ratio() * 1000.0).round() / 10.0,
        });
        let names =
            [("caller", &self.caller), ("model", &self.model), ("upstream", &self.upstream)];
        for (part, name) in names {
            if let Some(name) = name {
                state[part] = (**name).into();
            }
        }
        if self.is_common {
            state["is_shared_for_want_of_room"] = true.into();
        }
        let seconds =
            [("exhausted_in_s", self.exhausted_in_s), ("renewed_in_s", self.renewed_in_s)];
        for (key, seconds) in seconds {
            if let Some(seconds) = seconds {
                state[key] = (seconds.round() as u64).into();
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let row = |cells: [&str; 8]| cells.map(str::to_owned);
        let rows =
            [row(["a", "", "", "", "", "", "", ""]), row(["long", "b", "", "", "", "", "", "c"])];
        assert_eq!(table(&rows), "a\nlong  b            c\n");
    }

    #[test]
    fn a_time_is_told_in_a_unit_of_which_there_are_two() {
        let told = [1.4, 119.0, 120.0, 7_199.0, 7_200.0, 172_800.0].map(about);
        assert_eq!(told, ["1 s", "119 s", "2 min", "120 min", "2 h", "2 d"]);
    }
}
