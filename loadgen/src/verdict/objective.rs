//! What one objective came to.

use tidegate_settings::{Bound, Metric, Objective, Unit};

use super::interval::{self, Interval};
use super::{Evidence, Finding, Judged};
use crate::figures::{Tally, Times};
use crate::report::{Ended, time};
use crate::run::DRAIN;

/// With too few calls to bound a quantile from above, the slowest must stay below this share of the
/// limit.
const MARGIN: f64 = 0.5;

// === impl Judged ===

impl Judged {
    pub(super) fn of(objective: &Objective, evidence: &Evidence<'_>, confidence: f64) -> Self {
        let tally = evidence.figures.sum_for(objective.metric, |key| key.is_of(objective));
        let (metric, bound) = (objective.metric, objective.bound());
        let ran_out =
            !evidence.was_stopped && matches!(evidence.ended, Ended::Complete | Ended::Capped);
        let forgotten = evidence.forgotten;
        let judge = Judge { objective, confidence, ran_out, forgotten };
        let lasted_s = evidence.lasted_of(objective);
        match (metric, bound) {
            (Metric::ErrorRatio, Bound::Below(limit)) => judge.error_ratio(&tally, limit),
            (Metric::Goodput, Bound::Above(_)) if !evidence.counted_good => {
                judge.nothing(0, "not measured: the run did not count goodput by these objectives")
            }
            (Metric::Goodput, Bound::Above(limit)) => {
                let is_of_all = tally.calls() == evidence.figures.calls();
                let unsent = if is_of_all { evidence.unsent + forgotten } else { 0 };
                judge.goodput(&tally, tally.calls() + unsent, limit)
            }
            (Metric::CallsPerSecond, Bound::Above(limit)) => {
                let calls = Some(tally.calls()).filter(|calls| *calls > 0);
                judge.rate(&tally, calls, lasted_s, limit)
            }
            (Metric::OutputTokensPerSecond, Bound::Above(limit)) => {
                judge.rate(&tally, tally.tokens.output, lasted_s, limit)
            }
            (_, Bound::Below(limit)) => judge.quantile(&tally, limit),
            (_, Bound::Above(_)) => unreachable!("an objective is checked when it is read"),
        }
    }
}

/// One objective about to be judged.
struct Judge<'a> {
    objective: &'a Objective,
    confidence: f64,
    /// Whether the last calls had their whole time to end.
    ran_out: bool,
    /// Calls of which nothing is known.
    forgotten: u64,
}

/// Times of calls, of which some took longer than all that were measured.
struct Longest<'a> {
    times: &'a Times,
    /// Those that were measured and say something of their own.
    calls: u64,
    /// Those that were cut off.
    cut: u64,
    /// How long these took at least, in seconds.
    cut_s: f64,
}

impl Judge<'_> {
    /// Calls that were cut off at the end have no times. Those of whole calls are known to be long; of
    /// others it is known only that they might be.
    fn quantile(&self, tally: &Tally, limit: f64) -> Judged {
        let metric = self.objective.metric;
        let times = tally.times(metric).filter(|times| times.count() > 0);
        let Some(times) = times else { return self.unmeasured(tally) };
        let calls = independent(metric, tally, times);
        let cut = tally.outcomes.abandoned + self.forgotten;
        let of = |cut, cut_s| self.quantile_of(tally, &Longest { times, calls, cut, cut_s }, limit);
        let judged = of(0, 0.0);
        let is_whole = matches!(metric, Metric::Duration | Metric::ServiceDuration);
        let are_longer = is_whole && limit <= DRAIN.as_secs_f64() && self.ran_out;
        match (judged.finding, cut) {
            (_, 0) => judged,
            _ if are_longer => {
                let judged = of(cut, DRAIN.as_secs_f64());
                let why = format!(
                    "{}; {cut} of them were cut off {} after the last was due",
                    judged.why,
                    time(Some(DRAIN.as_secs_f64()))
                );
                Judged { why, ..judged }
            }
            (Finding::Pass, _) if of(cut, f64::INFINITY).finding != Finding::Pass => {
                let why = format!(
                    "{}; but {cut} calls that were cut off at the end have no times, and would be too many",
                    judged.why
                );
                Judged { finding: Finding::Inconclusive, why, ..judged }
            }
            _ => judged,
        }
    }

    fn quantile_of(&self, tally: &Tally, times: &Longest<'_>, limit: f64) -> Judged {
        let metric = self.objective.metric;
        let quantile = self.objective.quantile.expect("a time has one: it is checked");
        let calls = times.calls + times.cut;
        let shares = interval::of_quantile(quantile, calls, self.confidence);
        let bounds = Interval {
            low: shares.low.and_then(|share| times.at(share)),
            high: shares.high.and_then(|share| times.at(share)),
        };
        let measured = times.at(quantile).unwrap_or_default();
        let slowest = times.at(1.0).unwrap_or_default();
        let is_far_below = calls as f64 * (1.0 - quantile) >= 1.0 && slowest < MARGIN * limit;
        let (finding, why) = match bounds {
            Interval { high: Some(high), .. } if high < limit => (Finding::Pass, String::new()),
            Interval { low: Some(low), .. } if low >= limit => (Finding::Fail, String::new()),
            Interval { high: None, .. } if is_far_below => {
                let why = format!(
                    "; {} calls would bound it, but the slowest took {}, less than half of the limit",
                    interval::fewest(quantile, self.confidence),
                    time(Some(slowest))
                );
                (Finding::Pass, why)
            }
            Interval { high: None, .. } => {
                let fewest = interval::fewest(quantile, self.confidence);
                (
                    Finding::Inconclusive,
                    format!(": too few to bound it from above, which takes {fewest}"),
                )
            }
            _ => (Finding::Inconclusive, ": too few to tell it from the limit".to_owned()),
        };
        let why = self.told(measured, bounds, calls, finding)
            + &why
            + &coverage(tally, metric, times.times);
        self.judged(finding, Some(measured), bounds, calls, why)
    }

    fn error_ratio(&self, tally: &Tally, limit: f64) -> Judged {
        let (bad, all) = (tally.bad, tally.accountable);
        if all == 0 {
            return self.unmeasured(tally);
        }
        let bounds = interval::of_ratio(bad, all, self.confidence);
        let (finding, why) = below(bounds, limit);
        let told = self.told(bad as f64 / all as f64, bounds, all, finding) + why;
        // Whole answers to something else are no errors by the definition; but no proof of none, either.
        // Nor are calls without an end.
        let (wrong, cut) = (tally.wrong_content(), tally.outcomes.abandoned + self.forgotten);
        let with_them = interval::of_ratio(bad + wrong + cut, all + cut, self.confidence);
        if finding == Finding::Pass && below(with_them, limit).0 != Finding::Pass {
            let doubts =
                [(wrong, "answers had wrong content"), (cut, "calls were cut off at the end")];
            let doubts = doubts.into_iter().filter(|(count, _)| *count > 0);
            let doubts: Vec<_> = doubts.map(|(count, what)| format!("{count} {what}")).collect();
            let why = format!("{told}; but {}, and would be too many", doubts.join(" and "));
            let measured = Some(bad as f64 / all as f64);
            return self.judged(Finding::Inconclusive, measured, bounds, all, why);
        }
        self.judged(finding, Some(bad as f64 / all as f64), bounds, all, told)
    }

    fn goodput(&self, tally: &Tally, due: u64, limit: f64) -> Judged {
        if due == 0 {
            return self.unmeasured(tally);
        }
        let bounds = interval::of_ratio(tally.good, due, self.confidence);
        let (finding, why) = match bounds {
            Interval { low: Some(low), .. } if low > limit => (Finding::Pass, ""),
            Interval { high: Some(high), .. } if high <= limit => (Finding::Fail, ""),
            _ => (Finding::Inconclusive, ": too few to tell it from the limit"),
        };
        let measured = tally.good as f64 / due as f64;
        let told = self.told(measured, bounds, due, finding) + why;
        self.judged(finding, Some(measured), bounds, due, told)
    }

    fn rate(&self, tally: &Tally, count: Option<u64>, lasted_s: f64, limit: f64) -> Judged {
        let count = count.filter(|_| lasted_s > 0.0);
        let Some(count) = count else { return self.unmeasured(tally) };
        let measured = count as f64 / lasted_s;
        let silent = tally.tokens.usage_absent;
        let lacks_tokens = self.objective.metric == Metric::OutputTokensPerSecond && silent > 0;
        let (finding, why) = match measured > limit {
            true => (Finding::Pass, String::new()),
            false if lacks_tokens => {
                (Finding::Inconclusive, format!("; but {silent} answers stated no tokens"))
            }
            false => (Finding::Fail, String::new()),
        };
        let over = match &self.objective.stage {
            Some(stage) => format!("the {lasted_s:.0} s of stage {stage}"),
            None => "the whole run".to_owned(),
        };
        let why = format!("{} {measured:.1}, over {over}{why}", self.objective.metric);
        self.judged(finding, Some(measured), Interval::default(), tally.calls(), why)
    }

    fn unmeasured(&self, tally: &Tally) -> Judged {
        let calls = tally.calls();
        let why = match calls {
            0 => "not measured: no call was of its kind".to_owned(),
            _ => format!("not measured: none of {calls} calls came to have it"),
        };
        self.nothing(calls, &why)
    }

    fn nothing(&self, calls: u64, why: &str) -> Judged {
        self.judged(Finding::Inconclusive, None, Interval::default(), calls, why.to_owned())
    }

    /// What was measured, and the bound that matters for what follows of it.
    fn told(&self, measured: f64, bounds: Interval, calls: u64, finding: Finding) -> String {
        let shown = |value| shown(value, self.objective.metric.unit());
        let sure = format!("{}% sure", (self.confidence * 1e6).round() / 1e4);
        let is_least =
            matches!(self.objective.bound(), Bound::Below(_)) == (finding == Finding::Fail);
        let between = match (finding, bounds.low, bounds.high) {
            (Finding::Inconclusive, Some(low), Some(high)) => {
                format!(", between {} and {} ({sure})", shown(low), shown(high))
            }
            (_, Some(low), _) if is_least => format!(", at least {} ({sure})", shown(low)),
            (_, _, Some(high)) if !is_least => format!(", at most {} ({sure})", shown(high)),
            _ => String::new(),
        };
        let what = match self.objective.quantile {
            Some(quantile) => format!("p{}", (quantile * 1e8).round() / 1e6),
            None => self.objective.metric.as_str().replace('_', " "),
        };
        format!("{what} {}{between}, of {calls} calls", shown(measured))
    }

    fn judged(
        &self,
        finding: Finding,
        measured: Option<f64>,
        bounds: Interval,
        calls: u64,
        why: String,
    ) -> Judged {
        Judged {
            name: self.objective.title(),
            objective: self.objective.clone(),
            finding,
            measured,
            at_least: bounds.low,
            at_most: bounds.high,
            calls,
            why,
        }
    }
}

// === impl Longest ===

impl Longest<'_> {
    /// In seconds: this share of all, the cut ones among them, is no longer.
    fn at(&self, share: f64) -> Option<f64> {
        let place = share * (self.calls + self.cut) as f64 / self.calls as f64;
        match place > 1.0 {
            true => self.times.at(1.0).map(|slowest| slowest.max(self.cut_s)),
            false => self.times.at(place),
        }
    }
}

fn below(bounds: Interval, limit: f64) -> (Finding, &'static str) {
    match bounds {
        Interval { high: Some(high), .. } if high < limit => (Finding::Pass, ""),
        Interval { low: Some(low), .. } if low >= limit => (Finding::Fail, ""),
        _ => (Finding::Inconclusive, ": too few to tell it from the limit"),
    }
}

/// How many of the times say something of their own: the gaps of one call are one call's.
pub(crate) fn independent(metric: Metric, tally: &Tally, times: &Times) -> u64 {
    let streams = tally.times(Metric::TimeToFirstToken).map_or(0, Times::count);
    match metric {
        Metric::Gap => times.count().min(streams.max(1)),
        _ => times.count(),
    }
}

/// Says so where many whole answers did not have it.
fn coverage(tally: &Tally, metric: Metric, times: &Times) -> String {
    let whole = tally.outcomes.completed.saturating_sub(tally.wrong_content());
    let had_it = independent(metric, tally, times);
    match had_it < whole {
        true => format!("; {} of {whole} whole answers did not have it", whole - had_it),
        false => String::new(),
    }
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Time => time(Some(value)),
        Unit::Ratio => percent(value),
        Unit::Rate => format!("{value:.1}"),
    }
}

/// A share in percent, with as many digits as tell it from none and from all.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent.min(100.0 - percent) {
        edge if edge <= 0.0 => format!("{percent:.0}%"),
        edge if edge < 0.1 => format!("{percent:.3}%"),
        edge if edge < 10.0 => format!("{percent:.2}%"),
        _ => format!("{percent:.1}%"),
    }
}
