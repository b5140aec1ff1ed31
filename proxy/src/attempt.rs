//! An attempt at an upstream, and those who wait to hear how it goes.

use tokio::time::Instant;

use crate::verdict::Verdict;

/// Something that an attempt holds: a breaker's lease, a permit, a place in a balancer's count.
///
/// It lives until the attempt is over: an answer that was handed over whole, that broke off, that
/// was given up for another attempt, or whose caller left. Dropped unjudged, nothing is known.
pub(crate) trait Watch {
    /// How it goes: at the first token of a stream, else at the end of the answer, or where there
    /// is none. Comes at most once.
    fn judged(&mut self, verdict: &Verdict, now: Instant);

    /// It is over. `broke`: it was judged good, and failed or broke off later.
    fn ended(&mut self, broke: bool, now: Instant) {
        let _ = (broke, now);
    }

    /// It is over before its end, and not by the upstream's doing: its caller left, or we did.
    fn left(&mut self, now: Instant) {
        self.ended(false, now);
    }
}

/// The attempt at hand.
#[derive(Default)]
pub(crate) struct Attempt {
    began: Option<Instant>,
    /// The last who came.
    watching: Option<Box<Watching<dyn Watch>>>,
    verdict: Option<Verdict>,
    /// Why it got no answer.
    failure: Option<&'static str>,
}

/// Someone who waits to hear how it goes, and who came before: a list, for there are few, and each
/// costs no more than its place.
struct Watching<W: ?Sized> {
    before: Option<Box<Watching<dyn Watch>>>,
    watcher: W,
}

impl Attempt {
    /// It is under way.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// It begins anew, and whoever waits to hear how it goes waits on.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.began = Some(now);
        self.failure = None;
    }

    /// It got no answer: the `error.type` of that.
    pub(crate) fn failed(&mut self, kind: &'static str) {
        self.failure = Some(kind);
    }

    /// Why it got no answer.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        self.failure
    }

    /// When it began.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Holds this until it is over.
    pub(crate) fn watch(&mut self, watcher: impl Watch + 'static) {
        let before = self.watching.take();
        self.watching = Some(Box::new(Watching { before, watcher }));
    }

    /// Whether somebody waits to hear how it goes.
    pub(crate) fn awaits_verdict(&self) -> bool {
        self.verdict.is_none() && self.watching.is_some()
    }

    /// How it goes; only the first word counts.
    pub(crate) fn judge(&mut self, verdict: Verdict, now: Instant) {
        if self.verdict.is_none() {
            self.tell(|watcher| watcher.judged(&verdict, now));
            self.verdict = Some(verdict);
        }
    }

    /// It is over before its end, and everything it held is free.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.tell(|watcher| watcher.left(now));
        *self = Self::default();
    }

    /// It is over, and everything it held is free.
    pub(crate) fn end(&mut self, broke: bool, now: Instant) {
        self.tell(|watcher| watcher.ended(broke, now));
        *self = Self::default();
    }

    fn tell(&mut self, tell: impl Fn(&mut dyn Watch)) {
        let mut next = self.watching.as_deref_mut();
        while let Some(watching) = next {
            tell(&mut watching.watcher);
            next = watching.before.as_deref_mut();
        }
    }
}
