//! The view of a run as lines of text: no wider and no more than a terminal has room for.

use std::time::Duration;

use unicode_width::UnicodeWidthChar;

use super::glance::{Glance, Row};
use super::so_far::{LastMinute, Second};
use super::spark;
use crate::figures::{Quantiles, Strain};
use crate::report::table::count;
use crate::report::{Finding, Grid, time};
use crate::screen::Drawn;

/// Objectives that have a line of their own.
const MOST_OBJECTIVES: usize = 5;
/// Letters of the bar, at most.
const LONGEST_BAR: usize = 50;
/// Letters before a small chart, and behind it.
const BESIDE_A_CHART: (usize, usize) = (13, 36);

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Doubtful,
}

/// A line in the making.
type Line = Vec<(Style, String)>;

/// Lines that belong together. Where there is no room, those with the highest rank go first, from their
/// end.
struct Part {
    rank: u8,
    lines: Vec<Line>,
}

/// What is shown, in so many columns and rows.
pub(super) fn lines(
    glance: &Glance,
    (columns, rows): (usize, usize),
    has_colours: bool,
) -> Vec<Drawn> {
    // A terminal whose last column is written to may begin a new row; the cursor stands on the last row.
    let (columns, rows) = (columns.saturating_sub(1), rows.saturating_sub(1));
    let mut parts = vec![
        Part { rank: 0, lines: vec![heading(glance)] },
        Part { rank: 1, lines: glance.step.iter().map(|step| plain(step.clone())).collect() },
        Part { rank: 0, lines: vec![progress(glance, columns)] },
        Part { rank: 0, lines: vec![counts(glance)] },
        Part { rank: 7, lines: charts(glance, columns) },
    ];
    parts.extend(table(glance));
    parts.extend([
        Part { rank: 3, lines: troubles(glance) },
        Part { rank: 2, lines: generator(glance) },
        Part { rank: 4, lines: objectives(glance) },
        Part { rank: 5, lines: money(glance) },
        Part { rank: 6, lines: other_side(glance) },
    ]);
    fit(&mut parts, rows);
    let lines = parts.iter().flat_map(|part| &part.lines);
    lines.map(|line| drawn(line, columns, has_colours)).collect()
}

fn fit(parts: &mut [Part], rows: usize) {
    let count = |parts: &[Part]| parts.iter().map(|part| part.lines.len()).sum::<usize>();
    while count(parts) > rows {
        let filled = parts.iter_mut().filter(|part| !part.lines.is_empty());
        let Some(least) = filled.max_by_key(|part| part.rank) else { return };
        least.lines.pop();
    }
}

/// Where the calls go, and what the run does.
fn heading(glance: &Glance) -> Line {
    let stage = glance.stage.as_ref().map_or_else(String::new, |stage| format!(", stage {stage}"));
    vec![
        (Style::Strong, format!("load on {}", glance.target)),
        (Style::Plain, format!("  {}{stage}", glance.phase)),
    ]
}

fn progress(glance: &Glance, columns: usize) -> Line {
    let (elapsed, whole) = (glance.elapsed, glance.whole);
    let left = whole.saturating_sub(elapsed);
    let counts = match elapsed < glance.warm_up {
        true => format!(", counts in {}", clock(glance.warm_up - elapsed)),
        false => String::new(),
    };
    let said = format!("  {} of {}, {} to go{counts}", clock(elapsed), clock(whole), clock(left));
    let letters = columns.saturating_sub(said.len()).min(LONGEST_BAR);
    let share = elapsed.as_secs_f64() / whole.as_secs_f64();
    let bar = spark::bar(share, letters, ('━', '─'));
    let (done, open) = bar.split_at(bar.find('─').unwrap_or(bar.len()));
    vec![(Style::Good, done.to_owned()), (Style::Faint, open.to_owned()), (Style::Plain, said)]
}

/// Minutes and seconds; hours where there are some.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn counts(glance: &Glance) -> Line {
    let users = match glance.users_in < glance.users {
        true => format!("{} of {} users", glance.users_in, glance.users),
        false => format!("{} users", glance.users),
    };
    let has_errors = if glance.errors > 0 { Style::Bad } else { Style::Plain };
    let cost = glance.cost.map_or_else(String::new, |cost| format!("  ${cost:.2}"));
    vec![
        (
            Style::Plain,
            format!("{users}  {} in flight  {} calls  ", glance.in_flight, count(glance.calls)),
        ),
        (has_errors, format!("{} errors", count(glance.errors))),
        (Style::Plain, format!("  {:.0} output tokens/s{cost}", glance.tokens_per_s)),
    ]
}

/// The last minute: how many calls ended each second, and how long they took.
fn charts(glance: &Glance, columns: usize) -> Vec<Line> {
    let (before, behind) = BESIDE_A_CHART;
    let letters = columns.saturating_sub(before + behind).min(LastMinute::LONG);
    if glance.minute.is_empty() || letters == 0 {
        return Vec::new();
    }
    let chart = |name: &str, of: &dyn Fn(&Second) -> Option<f64>, said: String| {
        let values: Vec<_> = glance.minute.iter().map(of).collect();
        vec![
            (Style::Plain, format!("{name:<before$}")),
            (Style::Good, spark::line(&values, letters)),
            (Style::Plain, format!("  {said}")),
        ]
    };
    let rates = format!("{:.1} now, {:.1} in all", glance.calls_per_s_now, glance.calls_per_s);
    let mut charts = vec![chart("calls/s", &|second| Some(second.calls as f64), rates)];
    let all = &glance.all;
    let (name, of, whole): (_, fn(&Second) -> Option<f64>, _) = match all.first_token {
        Some(first) => ("first token", |second| second.first_token, Some(first)),
        None => ("duration", |second| second.duration, all.duration),
    };
    let now = glance.minute.iter().rev().find_map(of);
    if now.is_some() || whole.is_some() {
        let whole = time(whole.map(|whole| whole.p99));
        charts.push(chart(name, &of, format!("p99 {} now, {whole} in all", time(now))));
    }
    charts
}

/// The models, each on a row; the heading and the sum stay longest.
fn table(glance: &Glance) -> [Part; 3] {
    let mut grid = Grid::default();
    grid.row(["", "", "", "TTFT", "", "", "duration", "", ""]);
    grid.row(["model", "calls", "errors", "p50", "p90", "p99", "p50", "p90", "p99"]);
    let is_one = glance.rows.len() == 1;
    let all = std::iter::once(&glance.all).filter(|_| !is_one);
    glance.rows.iter().chain(all).for_each(|row| grid.row(cells(row)));
    let text = if glance.rows.is_empty() { String::new() } else { grid.to_string() };
    let mut lines: Vec<_> = text.lines().map(|line| plain(line.to_owned())).collect();
    let last = if is_one { Vec::new() } else { lines.pop().into_iter().collect() };
    let rows = lines.split_off(lines.len().min(2));
    let faint = |line: Line| line.into_iter().map(|(_, text)| (Style::Faint, text)).collect();
    [
        Part { rank: 8, lines: lines.into_iter().map(faint).collect() },
        Part { rank: 9, lines: rows },
        Part { rank: 7, lines: last },
    ]
}

fn cells(row: &Row) -> Vec<String> {
    let three: [fn(&Quantiles) -> f64; 3] = [|q| q.p50, |q| q.p90, |q| q.p99];
    let mut cells = vec![row.name.clone(), count(row.calls), count(row.errors)];
    cells.extend(three.map(|at| time(row.first_token.as_ref().map(at))));
    cells.extend(three.map(|at| time(row.duration.as_ref().map(at))));
    cells
}

/// Errors by what one would do about them.
fn troubles(glance: &Glance) -> Vec<Line> {
    let kinds = glance.kinds.iter().filter(|(_, calls)| *calls > 0);
    let kinds: Vec<_> =
        kinds.map(|(kind, calls)| format!("{} {}", kind.as_str(), count(*calls))).collect();
    match kinds.is_empty() {
        true => Vec::new(),
        false => vec![vec![(Style::Bad, format!("trouble: {}", kinds.join(", ")))]],
    }
}

/// Whether the generator keeps up.
fn generator(glance: &Glance) -> Vec<Line> {
    let warning =
        glance.invalid.iter().map(|reason| vec![(Style::Bad, format!("INVALID so far: {reason}"))]);
    let read = glance.read_lag.map(|lag| format!(", read {} after arrival", time(Some(lag.p99))));
    let lag = glance.send_lag.iter().filter(|_| glance.invalid.is_none()).map(|lag| {
        let read = read.as_deref().unwrap_or_default();
        plain(format!("sent {} after due{read} (p99)", time(Some(lag.p99))))
    });
    warning.chain(lag).collect()
}

/// What the objectives have come to; those that are missed stand first.
fn objectives(glance: &Glance) -> Vec<Line> {
    let mut judged: Vec<_> = glance.objectives.iter().collect();
    judged.sort_by_key(|one| match one.finding {
        Finding::Fail => 0,
        Finding::Inconclusive => 1,
        Finding::Pass => 2,
    });
    let more = judged.split_off(judged.len().min(MOST_OBJECTIVES));
    let line = |one: &&crate::report::Judged| {
        let (style, word) = match one.finding {
            Finding::Pass => (Style::Good, "holds "),
            Finding::Fail => (Style::Bad, "missed"),
            Finding::Inconclusive => (Style::Doubtful, "open  "),
        };
        vec![(style, word.to_owned()), (Style::Plain, format!("  {}: {}", one.name, one.why))]
    };
    let mut lines: Vec<_> = judged.iter().map(line).collect();
    if !more.is_empty() {
        lines.push(plain(format!("{} more objectives", more.len())));
    }
    lines
}

/// What is spent of the caps.
fn money(glance: &Glance) -> Vec<Line> {
    let (caps, spent) = (glance.caps, glance.spent);
    let of = |spent: f64, cap: f64| format!("{:.0}%", 100.0 * spent / cap);
    let tokens = caps.tokens.map(|cap| {
        let share = of(spent.tokens as f64, cap as f64);
        format!("{} of {} tokens ({share})", count(spent.tokens), count(cap))
    });
    let usd = caps.usd.map(|cap| format!("${:.2} of ${cap} ({})", spent.usd, of(spent.usd, cap)));
    let spent: Vec<_> = tokens.into_iter().chain(usd).collect();
    match spent.is_empty() {
        true => Vec::new(),
        false => vec![plain(format!("spent or set aside: {}", spent.join(", ")))],
    }
}

/// How hard the other side has it.
fn other_side(glance: &Glance) -> Vec<Line> {
    let said = glance.strain.iter().map(|(strain, said)| {
        let (word, value) = (strain.as_str(), strain.text(said.mean));
        match strain {
            Strain::Waiting | Strain::Running => format!("{value} {word}"),
            Strain::Cache | Strain::Gpu => format!("{word} {value}"),
        }
    });
    let said: Vec<_> = said.collect();
    match said.is_empty() {
        true => Vec::new(),
        false => vec![plain(format!("the other side: {}", said.join(", ")))],
    }
}

fn plain(text: String) -> Line {
    vec![(Style::Plain, text)]
}

/// A line as it is written, cut where the terminal ends.
fn drawn(line: &Line, columns: usize, has_colours: bool) -> Drawn {
    let (mut text, mut taken) = (String::new(), 0);
    for (style, piece) in line {
        let (cut, more, is_whole) = cut(piece, columns - taken);
        taken += more;
        match style.code().filter(|_| has_colours && !cut.is_empty()) {
            Some(code) => text += &format!("\x1b[{code}m{cut}\x1b[0m"),
            None => text += &cut,
        }
        if !is_whole {
            break;
        }
    }
    Drawn { text, columns: taken }
}

/// As much of a text as fits, how many columns that takes, and whether it is all. What would move the cursor is
/// no text.
fn cut(text: &str, room: usize) -> (String, usize, bool) {
    let (mut cut, mut taken) = (String::new(), 0);
    for letter in text.chars() {
        let letter = if letter.is_control() { '\u{fffd}' } else { letter };
        let width = letter.width().unwrap_or(0);
        if taken + width > room {
            return (cut, taken, false);
        }
        cut.push(letter);
        taken += width;
    }
    (cut, taken, true)
}

// === impl Style ===

impl Style {
    /// By ECMA-48; colours are those that the terminal's owner has chosen.
    fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Strong => Some(1),
            Self::Faint => Some(2),
            Self::Good => Some(32),
            Self::Bad => Some(31),
            Self::Doubtful => Some(33),
        }
    }
}

#[cfg(test)]
mod tests;
