//! What the chapter `outage` shows: a row for each phase, and a sentence of them all.

use tidegate_loadgen::report::{Grid, time};
use tidegate_wire::{Outcome, Record};

use crate::demo::compare::{Times, counts};
use crate::demo::percent;

/// Below this error ratio a phase was no outage, and proves nothing.
const OUTAGE: f64 = 0.05;

pub(super) const DEFINITIONS: &str = "\
Error ratio, as users see it: failed and truncated calls among all that were not given up by users.
First token: of all streams that had one. Attempts: at the failing upstream, for each call of users.
";

/// What the users of one side saw in one phase.
pub(super) struct Side {
    calls: usize,
    /// Calls of which an error would be somebody else's fault than the users'.
    counted: usize,
    errors: usize,
    first_token_p99_s: Option<f64>,
    /// At the failing upstream.
    attempts: u64,
}

/// A phase, side by side.
pub(super) struct Row {
    pub(super) phase: &'static str,
    pub(super) plain: Side,
    pub(super) policies: Side,
}

/// The table of all phases.
pub(super) fn grid(rows: &[Row]) -> Grid {
    let mut grid = Grid::default();
    let heads = ["", "calls", "", "error ratio", "", "first token p99", "", "attempts a call", ""];
    grid.row(heads);
    let sides = ["plain", "policies"].repeat(4);
    grid.row(["phase"].into_iter().chain(sides));
    for Row { phase, plain, policies } in rows {
        let cells: [fn(&Side) -> String; 4] =
            [|side| side.calls.to_string(), Side::errors, Side::first_token, Side::attempts];
        let cells = cells.iter().flat_map(|cell| [cell(plain), cell(policies)]);
        grid.row([(*phase).to_owned()].into_iter().chain(cells));
    }
    grid
}

/// Whether there were outages, and the policies helped in all of them.
pub(super) fn is_shown(rows: &[Row]) -> bool {
    rows.iter().any(Row::is_outage) && rows.iter().all(Row::is_kept)
}

/// What is to be learnt, in plain words. It is the last line.
pub(super) fn sentence(rows: &[Row]) -> String {
    let outages = || rows.iter().filter(|row| row.is_outage());
    let worst = |side: fn(&Row) -> &Side| {
        percent(outages().map(|row| side(row).error_ratio()).fold(0.0, f64::max))
    };
    let lost: Vec<_> = outages().filter(|row| !row.is_kept()).map(|row| row.phase).collect();
    if outages().count() == 0 {
        return "Nothing failed often enough to show what the policies are worth.".to_owned();
    }
    if !lost.is_empty() {
        return format!("The policies did not help enough in: {}.", lost.join("; "));
    }
    format!(
        "In {} of {} phases the upstream failed its plain users, up to {} of their calls; behind \
         the policies users lost {} at worst.",
        outages().count(),
        rows.len(),
        worst(|row| &row.plain),
        worst(|row| &row.policies),
    )
}

// === impl Side ===

impl Side {
    pub(super) fn of<'a>(calls: impl Iterator<Item = &'a Record>, attempts: u64) -> Self {
        let calls: Vec<_> = calls.collect();
        let counted = || calls.iter().filter(|call| counts(call));
        let first_token = Times::of(calls.iter().filter_map(|call| call.time_to_first_token_s));
        Self {
            calls: calls.len(),
            counted: counted().count(),
            errors: counted().filter(|call| call.outcome != Some(Outcome::Completed)).count(),
            first_token_p99_s: first_token.at(0.99),
            attempts,
        }
    }

    fn error_ratio(&self) -> f64 {
        self.errors as f64 / self.counted.max(1) as f64
    }

    pub(super) fn errors(&self) -> String {
        percent(self.error_ratio())
    }

    fn first_token(&self) -> String {
        time(self.first_token_p99_s)
    }

    fn attempts(&self) -> String {
        format!("{:.2}", self.attempts as f64 / self.calls.max(1) as f64)
    }
}

// === impl Row ===

impl Row {
    /// Whether the plain side failed so much that the policies have something to show.
    fn is_outage(&self) -> bool {
        self.plain.error_ratio() > OUTAGE
    }

    /// Whether the policies did what they are for: at most half of the errors.
    fn is_kept(&self) -> bool {
        !self.is_outage() || 2.0 * self.policies.error_ratio() <= self.plain.error_ratio()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::ErrorOrigin;

    use super::*;

    fn side(errors: usize) -> Side {
        Side { calls: 100, counted: 100, errors, first_token_p99_s: None, attempts: 150 }
    }

    fn row(plain: usize, policies: usize) -> Row {
        Row { phase: "cut", plain: side(plain), policies: side(policies) }
    }

    #[test]
    fn callers_who_leave_and_their_own_mistakes_are_no_errors() {
        let call = |outcome, error_origin| Record {
            outcome: Some(outcome),
            error_origin,
            ..Record::default()
        };
        let calls = [
            call(Outcome::Completed, None),
            call(Outcome::Failed, Some(ErrorOrigin::Upstream)),
            call(Outcome::Truncated, None),
            call(Outcome::Refused, Some(ErrorOrigin::Sidecar)),
            call(Outcome::Abandoned, None),
            call(Outcome::Failed, Some(ErrorOrigin::Client)),
        ];
        let side = Side::of(calls.iter(), 9);
        assert_eq!((side.calls, side.counted, side.errors), (6, 4, 3));
        assert_eq!((side.errors(), side.attempts()), ("75.0%".to_owned(), "1.50".to_owned()));
    }

    #[test]
    fn policies_must_halve_the_errors_of_an_outage() {
        for (plain, policies, kept) in
            [(50, 25, true), (50, 26, false), (6, 6, false), (5, 5, true), (0, 1, true)]
        {
            assert_eq!(row(plain, policies).is_kept(), kept, "{plain} {policies}");
        }
    }

    #[test]
    fn an_outage_that_was_none_shows_nothing() {
        assert!(is_shown(&[row(0, 0), row(50, 3)]));
        assert!(!is_shown(&[row(50, 3), row(50, 49)]));
        assert!(!is_shown(&[row(0, 0), row(4, 0)]));
    }

    #[test]
    fn the_sentence_says_what_the_rows_do() {
        let good = sentence(&[row(0, 0), row(50, 3)]);
        assert!(good.starts_with("In 1 of 2 phases") && good.ends_with("3.0% at worst."), "{good}");
        assert_eq!(
            sentence(&[row(50, 3), row(50, 49)]),
            "The policies did not help enough in: cut."
        );
        assert!(sentence(&[row(0, 0)]).starts_with("Nothing failed"));
    }
}
