//! What is printed and kept of the samples.

use serde_json::{Value, json};

use crate::scenario::{Figure, Goal, Sample, Scenario};
use crate::target::Kind;

/// The samples of one round, in the order of the targets.
pub(crate) type Round = Vec<(Kind, Sample)>;

/// One figure of one scenario, over all rounds.
#[derive(Debug)]
pub(crate) struct Row {
    figure: Figure,
    values: Vec<(Kind, Vec<f64>)>,
    /// tidegate by nginx, round by round.
    ratios: Vec<f64>,
    /// tidegate by the direct way, round by round.
    to_direct: Vec<f64>,
}

impl Row {
    /// A row for each figure of the scenario.
    pub(crate) fn all(scenario: &Scenario, kinds: &[Kind], rounds: &[Round]) -> Vec<Self> {
        scenario.figures.iter().map(|&figure| Self::new(figure, kinds, rounds)).collect()
    }

    fn new(figure: Figure, kinds: &[Kind], rounds: &[Round]) -> Self {
        let value = |round: &Round, kind: Kind| {
            let sample = |kind| round.iter().find(|(of, _)| *of == kind).map(|(_, sample)| sample);
            figure.of(sample(kind)?, sample(Kind::Direct))
        };
        let ratio = |round: &Round, kind: Kind| {
            let other = value(round, kind).filter(|_| figure.has_ratio())?;
            Some(value(round, Kind::Tidegate)? / other)
        };
        let ratios = |kind: Kind| rounds.iter().filter_map(|round| ratio(round, kind)).collect();
        Self {
            figure,
            values: kinds
                .iter()
                .map(|&kind| (kind, rounds.iter().filter_map(|round| value(round, kind)).collect()))
                .collect(),
            ratios: ratios(Kind::Nginx),
            to_direct: ratios(Kind::Direct),
        }
    }

    /// Whether the goal is met by the median; none where there is no goal or no figure.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.figure.goal()? {
            Goal::TimesNginx(times) => Some(median(&self.ratios)? <= times),
            Goal::TimesDirect(times) => Some(median(&self.to_direct)? <= times),
            Goal::AtMost(limit) => {
                let (_, values) = self.values.iter().find(|(kind, _)| *kind == Kind::Tidegate)?;
                Some(median(values)? <= limit)
            }
        }
    }

    fn goal(&self) -> String {
        let goal = match self.figure.goal() {
            None => return String::new(),
            Some(Goal::TimesNginx(times)) => format!("<= {times} x nginx"),
            Some(Goal::TimesDirect(times)) => format!("<= {times} x direct"),
            Some(Goal::AtMost(limit)) => format!("<= {limit}"),
        };
        match self.met() {
            None => goal,
            Some(true) => format!("{goal}: met"),
            Some(false) => format!("{goal}: MISSED"),
        }
    }
}

/// Prints the rows of one scenario as a table: median, and the range where there were rounds.
pub(crate) fn print(scenario: &Scenario, kinds: &[Kind], rows: &[Row]) {
    println!("\n{}: {}", scenario.name, scenario.about);
    print!("  {:<24}", "");
    for kind in kinds {
        print!("{kind:<26}");
    }
    println!("{:<22}goal", "tidegate / nginx");
    for row in rows {
        print!("  {:<24}", row.figure.label());
        for (_, values) in &row.values {
            print!("{:<26}", summary(values, row.figure.decimals()));
        }
        println!("{:<22}{}", summary(&row.ratios, 2), row.goal());
    }
}

pub(crate) fn json(scenario: &Scenario, rows: &[Row]) -> Value {
    let figure = |row: &Row| {
        let targets: serde_json::Map<_, _> =
            row.values.iter().map(|(kind, values)| (kind.to_string(), json!(values))).collect();
        json!({
            "figure": row.figure.label(),
            "by_round": targets,
            "tidegate_by_nginx": row.ratios,
            "goal": row.figure.goal().map(|_| row.goal()),
            "met": row.met(),
        })
    };
    json!({
        "scenario": scenario.name,
        "about": scenario.about,
        "figures": rows.iter().map(figure).collect::<Vec<_>>(),
    })
}

/// `median (lowest to highest)`.
fn summary(values: &[f64], decimals: usize) -> String {
    let Some(median) = median(values) else { return "-".to_owned() };
    if values.len() == 1 {
        return format!("{median:.decimals$}");
    }
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{median:.decimals$} ({lowest:.decimals$} to {highest:.decimals$})")
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_summary_names_the_range_only_where_there_is_one() {
        assert_eq!(summary(&[1.25], 1), "1.2");
        assert_eq!(summary(&[1.0, 3.0, 2.0], 1), "2.0 (1.0 to 3.0)");
        assert_eq!(summary(&[], 1), "-");
    }
}
