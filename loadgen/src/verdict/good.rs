//! Whether one call did all that was promised of it.

use tidegate_settings::{Bound, Metric, Objective, Objectives, Unit};

use crate::figures::Call;

/// Whether it came whole, and measured and met each objective that applies to it and is a call's own.
/// Of gaps, its own quantile must be below the limit.
pub(crate) fn is_good(call: &Call, objectives: &Objectives) -> bool {
    let applying = objectives.objectives.iter().filter(|one| call.key.is_of(one));
    call.is_whole()
        && applying.filter(|one| one.metric.unit() == Unit::Time).all(|one| met(call, one))
}

fn met(call: &Call, objective: &Objective) -> bool {
    let Bound::Below(limit) = objective.bound() else { return true };
    let measured = match objective.metric {
        Metric::Gap => call.gap(objective.quantile.unwrap_or(1.0)),
        metric => call.seconds(metric),
    };
    measured.is_some_and(|seconds| seconds < limit)
}

#[cfg(test)]
mod tests {
    use tidegate_wire::Outcome;

    use super::*;
    use crate::figures::Kind;
    use crate::figures::tests::call;

    fn objectives(list: &str) -> Objectives {
        Objectives::parse(&format!("objectives: [{list}]")).expect("good objectives")
    }

    #[test]
    fn a_good_call_is_whole_and_measures_and_meets_what_applies() {
        let whole = call(1.0, Outcome::Completed);
        for (list, is_good) in [
            ("{ metric: goodput, above: 95% }", true),
            ("{ metric: duration, quantile: 0.5, below: 2s }", true),
            ("{ metric: duration, quantile: 0.5, below: 1s }", false),
            ("{ metric: duration, quantile: 0.5, below: 1s, model: other }", true),
            ("{ metric: time_to_first_token, quantile: 0.5, below: 2s }", false),
            ("{ metric: gap, quantile: 0.9, below: 21ms }", true),
            ("{ metric: gap, quantile: 0.9, below: 20ms }", false),
            ("{ metric: error_ratio, below: 1% }", true),
        ] {
            assert_eq!(super::is_good(&whole, &objectives(list)), is_good, "{list}");
        }
        let any = objectives("{ metric: goodput, above: 95% }");
        assert!(!super::is_good(&call(1.0, Outcome::Truncated), &any));
        let wrong = Call { kind: Some(Kind::WrongContent), ..whole };
        assert!(!super::is_good(&wrong, &any));
    }
}
