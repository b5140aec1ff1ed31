//! Users that call again as soon as they have their answer.

use std::time::Duration;

/// The longest time over which users come in.
const LONGEST_RAMP: Duration = Duration::from_secs(1);

/// When a user makes its first call: the users come in evenly over the first second, or over a
/// tenth of a short run. All at once would measure the burst of connections and not the load.
pub(crate) fn entrance(user: usize, users: usize, duration: Duration) -> Duration {
    let ramp = LONGEST_RAMP.min(duration / 10);
    ramp.mul_f64(user as f64 / users.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_in_over_the_first_second() {
        let minute = Duration::from_secs(60);
        assert_eq!(entrance(0, 200, minute), Duration::ZERO);
        assert_eq!(entrance(100, 200, minute), Duration::from_millis(500));
        assert!(entrance(199, 200, minute) < LONGEST_RAMP);
    }

    #[test]
    fn a_short_run_has_a_short_ramp() {
        assert_eq!(entrance(5, 10, Duration::from_secs(2)), Duration::from_millis(100));
    }
}
