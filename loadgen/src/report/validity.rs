//! Whether a run says anything of what it tested, or only of the generator.

use std::time::Duration;

use super::{Generator, Setup};
use crate::figures::{Figures, Kind};
use crate::schedule::Schedule;

/// The p99 of a lag above which the generator, and not what it tested, was the limit.
const LATEST_AT_A_RATE: Duration = Duration::from_millis(100);
/// The same where a late call is only the call of a slower user: its lateness makes no burst of others.
const LATEST_IN_A_LOOP: Duration = Duration::from_secs(1);
/// In an open loop, one call in so many may find every user busy.
const BUSY_ONE_IN: u64 = 100;

/// Why this run says nothing about what it tested, and what to do; none where it is valid.
pub(super) fn fault_of_ours(
    run: &Setup,
    figures: &Figures,
    generator: &Generator,
) -> Option<String> {
    let (total, users) = (figures.total(), run.users);
    if generator.lost_users > 0 {
        let lost = generator.lost_users;
        return Some(format!("{lost} of {users} users were lost to a fault of the generator"));
    }
    if generator.records_lost {
        return Some("the file of records is not whole: is the disk full?".to_owned());
    }
    if generator.source_lost {
        return Some("the file of calls could not be read to its end".to_owned());
    }
    if total.calls() == 0 {
        return Some("no call was made".to_owned());
    }
    let is_unsigned = total.kinds.get(&Kind::Unsigned) == Some(&total.calls());
    if is_unsigned {
        return Some("no call could be signed".to_owned());
    }
    if total.answered == 0 {
        return Some(format!("{} never answered", run.target));
    }
    let is_open = run.schedule != Schedule::Closed.as_str();
    generator_was_the_limit(is_open, users, total.calls(), generator)
}

/// Whether an open or a closed loop of so many users and calls was held up by the generator, and what to do.
pub(super) fn generator_was_the_limit(
    is_open: bool,
    users: usize,
    calls: u64,
    generator: &Generator,
) -> Option<String> {
    let latest = if is_open { LATEST_AT_A_RATE } else { LATEST_IN_A_LOOP }.as_secs_f64();
    let found_no_user = if is_open { generator.found_no_user } else { 0 };
    let were_busy = generator.unsent > 0 || found_no_user > calls / BUSY_ONE_IN;
    let [sent, read] =
        [generator.send_lag_s, generator.read_lag_s].map(|lag| lag.map_or(0.0, |lag| lag.p99));
    let (late, which) = if read > sent { (read, "read") } else { (sent, "send") };
    if !were_busy && late <= latest {
        return None;
    }
    let mut what = format!("the generator was the limit: p99 of its {which} lag is {late:.3} s");
    if late > latest {
        what += &format!(", more than {latest} s");
    }
    if were_busy {
        what += &format!(
            "; {found_no_user} calls were due while all {users} users were busy, and {} of them were \
             never sent",
            generator.unsent
        );
    }
    let advice = match (were_busy, is_open) {
        (true, _) => "give it more --users",
        (false, true) => "this machine could not keep up: lower --rate, or use a larger machine",
        (false, false) => "this machine could not keep up: fewer --users, or a larger machine",
    };
    Some(format!("{what}; {advice}"))
}

// === impl Generator ===

impl Generator {
    /// Whether calls were sent so late that it shows in their times.
    pub(super) fn is_late(&self) -> bool {
        self.send_lag_s.is_some_and(|lag| lag.p99 > LATEST_AT_A_RATE.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Quantiles, Times};

    fn lag(seconds: f64) -> Option<Quantiles> {
        let mut times = Times::default();
        times.seconds(seconds);
        times.quantiles()
    }

    #[test]
    fn who_sends_or_reads_late_says_nothing_of_the_target() {
        for (is_open, send, read, told) in [
            (true, 0.09, 0.09, None),
            (true, 0.2, 0.01, Some("its send lag is 0.2")),
            (true, 0.01, 0.2, Some("its read lag is 0.2")),
            (false, 0.5, 0.9, None),
            (false, 0.5, 1.5, Some("its read lag is 1.5")),
        ] {
            let generator =
                Generator { send_lag_s: lag(send), read_lag_s: lag(read), ..Generator::default() };
            let fault = generator_was_the_limit(is_open, 10, 100, &generator);
            match (fault, told) {
                (None, None) => {}
                (Some(fault), Some(told)) => assert!(fault.contains(told), "{fault}"),
                (fault, told) => panic!("{fault:?} in place of {told:?}"),
            }
        }
    }
}
