//! Cuts a reply in two, in many pieces, and short.
//!
//! Shared by path: fixtures and recorded exchanges are cut alike.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tidegate_wire::{Ending, Outcome, Record};

#[path = "random.rs"]
mod random;

pub(crate) use random::Random;

/// Every cut is tried up to here.
const DENSE: usize = 4 << 10;
/// So many are drawn beyond.
const DRAWN: usize = 256;

/// How many cuts were tried.
#[derive(Default)]
pub(crate) struct Tried {
    pub(crate) in_two: usize,
    in_many: usize,
    short: usize,
}

impl AddAssign for Tried {
    fn add_assign(&mut self, other: Self) {
        self.in_two += other.in_two;
        self.in_many += other.in_many;
        self.short += other.short;
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_two, in_many, short } = self;
        write!(f, "tried {in_two} cuts in two, {in_many} in many, {short} short,")
    }
}

/// Does the same to each, on all processors.
pub(crate) fn each<T: Sync>(all: &[T], check: impl Fn(&T) -> Tried + Sync) -> Tried {
    let (next, tried) = (AtomicUsize::new(0), Mutex::new(Tried::default()));
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let one = check(one);
            *tried.lock().expect("no check panicked while it held this") += one;
        }
    };
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (0..processors).for_each(|_| drop(scope.spawn(work)));
    });
    tried.into_inner().expect("no check panicked while it held this")
}

/// Cuts one reply; wherever that is, it makes the same record, and cut short none that is complete.
pub(crate) fn check(
    name: &str,
    reply: &[u8],
    ending: Ending,
    most: usize,
    replay: impl Fn(&[&[u8]], Ending) -> Record,
) -> Tried {
    let mut random = Random::new(name);
    let whole = replay(&[reply], ending);
    let places = places(reply.len(), most, &mut random);
    for &at in &places {
        let (head, tail) = reply.split_at(at);
        assert_eq!(replay(&[head, tail], ending), whole, "{name} cut at {at}");
        let short = replay(&[head], Ending::Broken);
        assert_ne!(short.outcome, Some(Outcome::Completed), "{name} broken at {at}");
        assert!(short.outcome.is_some(), "{name} broken at {at}");
    }
    let bytes: Vec<_> = reply.chunks(1).collect();
    assert_eq!(replay(&bytes, ending), whole, "{name} byte by byte");
    for _ in 0..3 {
        assert_eq!(replay(&random.cut(reply), ending), whole, "{name} in many pieces");
    }
    Tried { in_two: places.len(), in_many: 4, short: places.len() }
}

/// Where to cut: everywhere up to a length and at drawn places beyond, or as many of these as fit.
fn places(length: usize, most: usize, random: &mut Random) -> Vec<usize> {
    let mut places: Vec<_> = (0..length.min(DENSE)).collect();
    if length > DENSE {
        places.extend((0..DRAWN).map(|_| DENSE + random.below(length - DENSE)));
    }
    let fit = (most / length.max(1)).max(DRAWN);
    while places.len() > fit {
        places.swap_remove(random.below(places.len()));
    }
    places
}
