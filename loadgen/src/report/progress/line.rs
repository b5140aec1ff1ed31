//! How a run goes, on one line of a log.

use super::glance::Glance;
use super::spark::bar;
use crate::figures::Quantiles;
use crate::report::time;

/// The line, with the rate of calls since the last one.
pub(super) fn of(glance: &Glance, rate: f64) -> String {
    let (elapsed, whole) = (glance.elapsed.as_secs_f64(), glance.whole.as_secs_f64());
    let first = glance.all.first_token.as_ref();
    let first =
        first.map_or_else(String::new, |first| format!("  first token {}", quantiles(first)));
    let whole_answers = glance.all.duration.as_ref();
    let durations = whole_answers.map_or_else(|| "p50 -  p90 -  p99 -".to_owned(), quantiles);
    let lag = glance
        .send_lag
        .map_or_else(String::new, |lag| format!("  sent {} late (p99)", time(Some(lag.p99))));
    format!(
        "[{}]  {elapsed:.0}/{whole:.0} s  {} users  {rate:.0} calls/s  {} in flight  {} calls  \
         {} errors  {durations}{first}{lag}",
        bar(elapsed / whole, 20, ('#', '-')),
        glance.users_in,
        glance.in_flight,
        glance.calls,
        glance.errors,
    )
}

fn quantiles(of: &Quantiles) -> String {
    let [p50, p90, p99] = [of.p50, of.p90, of.p99].map(|seconds| time(Some(seconds)));
    format!("p50 {p50}  p90 {p90}  p99 {p99}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::progress::glance::Row;

    #[test]
    fn a_line_says_how_far_it_is_and_what_there_was() {
        let glance = Glance {
            elapsed: Duration::from_secs(5),
            whole: Duration::from_secs(20),
            users_in: 3,
            in_flight: 2,
            calls: 40,
            errors: 1,
            ..Glance::default()
        };
        let begun =
            "[#####---------------]  5/20 s  3 users  8 calls/s  2 in flight  40 calls  1 errors";
        assert_eq!(of(&glance, 8.0), format!("{begun}  p50 -  p90 -  p99 -"));
        let quantiles = Quantiles {
            count: 1,
            min: 0.1,
            mean: 0.2,
            p50: 0.2,
            p90: 0.3,
            p95: 0.35,
            p99: 0.4,
            p999: 0.4,
            max: 0.4,
        };
        let all = Row { first_token: Some(quantiles), duration: Some(quantiles), ..Row::default() };
        let line = of(&Glance { all, send_lag: Some(quantiles), ..glance }, 8.0);
        let measured = "p50 200ms  p90 300ms  p99 400ms";
        let expected =
            format!("{begun}  {measured}  first token {measured}  sent 400ms late (p99)");
        assert_eq!(line, expected);
    }
}
