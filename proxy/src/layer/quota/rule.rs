//! One quota: which calls it is about, and how much they may use.

use std::sync::Arc;

use tidegate_wire::glob;

use super::amounts::{Amounts, Kind};
use super::config::{Mode, Part, Parts, QuotaConfig, QuotaMatch, Reserve};
use super::window::Window;

/// One quota.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    /// The same for as long as the same is counted, whatever the limits say.
    pub(super) id: u64,
    pub(super) window: Window,
    pub(super) limits: Limits,
    pub(super) mode: Mode,
    pub(super) reserve: Reserve,
    /// Whether other sidecars spend it too.
    pub(super) is_shared: bool,
    /// What is counted, in a form that is the same for all of them.
    pub(super) counts: Arc<str>,
    matches: QuotaMatch,
    per: Parts,
}

/// The most of each kind; what is absent has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits([Option<u64>; Kind::ALL.len()]);

/// Which budget of which quota.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(super) rule: u64,
    /// The budget that all share for whom there was no room.
    pub(super) is_common: bool,
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) upstream: Option<Arc<str>>,
}

/// Who calls what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) upstream: Arc<str>,
}

// === impl Rule ===

impl Rule {
    pub(super) fn new(name: &str, config: &QuotaConfig) -> Self {
        Self {
            name: name.into(),
            id: 0,
            window: config.window(),
            limits: config.limits(),
            mode: config.mode,
            reserve: config.reserve,
            is_shared: config.shared,
            counts: counts(name, config),
            matches: config.matches.clone(),
            per: config.per.clone(),
        }
    }

    /// Whether both count the same.
    pub(super) fn counts_as(&self, other: &Self) -> bool {
        let of = |rule: &Self| (rule.matches.clone(), rule.per.clone(), rule.window.clone());
        let is_as_shared = self.is_shared == other.is_shared;
        self.name == other.name && of(self) == of(other) && is_as_shared
    }

    /// Whether it may be about calls to this upstream.
    pub(super) fn is_about(&self, upstream: &str) -> bool {
        self.matches.upstream.as_ref().is_none_or(|pattern| glob(pattern, upstream))
    }

    /// The budget that these calls are charged to; none where the quota is not about them.
    pub(super) fn key(&self, subject: &Subject) -> Option<Key> {
        let Subject { caller, model, upstream } = subject;
        let fits = |pattern: &Option<String>, name: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| name.is_some_and(|name| glob(pattern, name)))
        };
        let is_about = fits(&self.matches.caller, caller.as_deref())
            && fits(&self.matches.model, model.as_deref())
            && fits(&self.matches.upstream, Some(upstream));
        is_about.then(|| Key {
            rule: self.id,
            is_common: false,
            caller: caller.clone().filter(|_| self.per.has(Part::Caller)),
            model: model.clone().filter(|_| self.per.has(Part::Model)),
            upstream: Some(upstream.clone()).filter(|_| self.per.has(Part::Upstream)),
        })
    }

    /// The budget of this quota for whom there is no other.
    pub(super) fn common(&self) -> Key {
        Key { rule: self.id, is_common: true, caller: None, model: None, upstream: None }
    }

    /// Whether it must be known which model a call is for.
    pub(super) fn asks_for_model(&self) -> bool {
        self.matches.model.is_some() || self.per.has(Part::Model)
    }

    /// Whether it must be known how much a call may use, before that goes on.
    pub(super) fn asks_for_body(&self) -> bool {
        self.mode == Mode::Enforce && self.limits.has_output()
    }
}

fn counts(name: &str, config: &QuotaConfig) -> Arc<str> {
    let QuotaConfig { matches, per, window, zone, .. } = config;
    let form = serde_json::to_string(&(name, matches, per, window, zone));
    form.expect("what was read from a file can be written").into()
}

// === impl Limits ===

impl Limits {
    pub(super) fn new(limits: impl IntoIterator<Item = (Kind, u64)>) -> Self {
        let mut all = Self::default();
        limits.into_iter().for_each(|(kind, limit)| all.0[kind as usize] = Some(limit));
        all
    }

    pub(super) fn of(&self, kind: Kind) -> Option<u64> {
        self.0[kind as usize]
    }

    /// The most there can be of each kind that has a limit.
    pub(super) fn all(&self) -> Amounts {
        let mut all = Amounts::default();
        self.kinds().for_each(|(kind, _)| all[kind] = u64::MAX);
        all
    }

    /// Those that there are.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, self.of(kind)?)))
    }

    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it depends on what a model answers.
    fn has_output(&self) -> bool {
        [Kind::OutputTokens, Kind::Tokens, Kind::Cost].iter().any(|kind| self.of(*kind).is_some())
    }

    /// Whether it is about money.
    pub(super) fn has_cost(&self) -> bool {
        self.of(Kind::Cost).is_some()
    }
}
