//! Which part of a load one machine of several makes.

use std::num::NonZeroU64;
use std::str::FromStr;

/// One of so many equal parts of a load: each call, and each user, is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Counted from 0.
    index: u64,
    count: NonZeroU64,
}

// === impl Shard ===

impl Shard {
    /// How many parts there are.
    pub fn count(self) -> u64 {
        self.count.get()
    }

    /// Whether this call of the load is in it; calls are counted from 0.
    pub fn takes(self, call: u64) -> bool {
        call % self.count == self.index
    }

    /// What number of the whole load its own number so and so has.
    pub fn of_all(self, own: u64) -> u64 {
        own * self.count.get() + self.index
    }

    /// How many of so many users are in it.
    pub fn share(self, users: usize) -> usize {
        (0..users as u64).filter(|user| self.takes(*user)).count()
    }
}

impl Default for Shard {
    /// The whole load.
    fn default() -> Self {
        Self { index: 0, count: NonZeroU64::MIN }
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (number, count) = text.split_once('/')?;
            let (number, count) = (number.parse::<u64>().ok()?, count.parse::<NonZeroU64>().ok()?);
            let index = number.checked_sub(1).filter(|index| *index < count.get())?;
            (count.get() <= 10_000).then_some(Self { index, count })
        };
        read().ok_or_else(|| format!("`{text}` is no part of a load; the third of ten is 3/10"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_and_each_user_is_in_exactly_one_part() {
        let parts: Vec<Shard> =
            (1..=7).map(|part| format!("{part}/7").parse().expect("a part")).collect();
        for call in 0..100 {
            assert_eq!(parts.iter().filter(|part| part.takes(call)).count(), 1);
        }
        assert_eq!(parts.iter().map(|part| part.share(200)).sum::<usize>(), 200);
        assert_eq!(parts[2].of_all(5), 37);
        assert!(parts[2].takes(37));
        assert!(Shard::default().takes(3) && Shard::default().of_all(3) == 3);
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for text in ["0/10", "11/10", "3", "1/0", "a/b", "1/20000"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
