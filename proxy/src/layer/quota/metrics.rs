//! What metrics show of quotas.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Quotas;
use super::amounts::Kind;
use super::config::Mode;
use super::line::Line;
use super::tally::Basis;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Names, OTHER, Source, Value};

/// Quotas, and the models that may be label values.
pub(crate) struct QuotaMetrics {
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) models: Arc<Names>,
}

/// Sums of lines that have the same labels.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    limit: f64,
    used: f64,
    open: f64,
    ratio: f64,
    exhausted_in_s: Option<f64>,
}

/// Budgets that metrics tell apart; beyond it callers and models count as [`OTHER`].
const SERIES: usize = 500;

// === impl QuotaMetrics ===

impl QuotaMetrics {
    /// The labels of a line, in the order of the families.
    fn labels(&self, line: &Line) -> Vec<String> {
        let model = |model: &Arc<str>| {
            self.models
                .admit(model, false)
                .map_or_else(|| OTHER.to_owned(), |name| name.to_string())
        };
        let parts = match line.is_common {
            true => [OTHER, OTHER, ""].map(str::to_owned),
            false => [
                self.quotas.label(line.caller.as_ref()).to_string(),
                line.model.as_ref().map(model).unwrap_or_default(),
                line.upstream.as_deref().unwrap_or_default().to_owned(),
            ],
        };
        let [caller, model, upstream] = parts;
        vec![line.quota.to_string(), caller, model, upstream, line.kind.as_str().to_owned()]
    }

    fn sums(&self) -> BTreeMap<Vec<String>, Sum> {
        let mut sums: BTreeMap<Vec<String>, Sum> = BTreeMap::new();
        for line in self.quotas.lines() {
            let mut labels = self.labels(&line);
            if sums.len() >= SERIES && !sums.contains_key(&labels) {
                (labels[1], labels[2]) = (OTHER.to_owned(), OTHER.to_owned());
            }
            sums.entry(labels).or_default().add(&line);
        }
        sums
    }
}

impl Source for QuotaMetrics {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        for (labels, sum) in self.sums() {
            let Sum { limit, used, open, ratio, exhausted_in_s } = sum;
            show(&catalog::QUOTA_LIMIT, labels.clone(), Value::Measure(limit));
            show(&catalog::QUOTA_USED, labels.clone(), Value::Measure(used));
            show(&catalog::QUOTA_RESERVED, labels.clone(), Value::Measure(open));
            if let Some(seconds) = exhausted_in_s {
                show(&catalog::QUOTA_EXHAUSTED_IN, labels.clone(), Value::Measure(seconds));
            }
            show(&catalog::QUOTA_USED_RATIO, labels, Value::Measure(ratio));
        }
        for (quota, tally, budgets) in self.quotas.kept.budgets.tallies(&self.quotas.rules) {
            let quota = quota.to_string();
            let budgets = Value::Gauge(i64::try_from(budgets).unwrap_or(i64::MAX));
            show(&catalog::QUOTA_BUDGETS, vec![quota.clone()], budgets);
            let without_room = Value::Counter(tally.overflowed);
            show(&catalog::QUOTA_WITHOUT_ROOM, vec![quota.clone()], without_room);
            for basis in Basis::ALL {
                let labels = vec![quota.clone(), basis.as_str().to_owned()];
                let charged = Value::Counter(tally.charged[basis as usize]);
                show(&catalog::QUOTA_CHARGED, labels, charged);
            }
            for (caller, by_mode) in &tally.refusals {
                for (mode, kind) in
                    Mode::ALL.into_iter().flat_map(|mode| Kind::ALL.map(|kind| (mode, kind)))
                {
                    let count = by_mode[mode as usize][kind as usize];
                    let words = [&quota, &**caller, kind.as_str(), mode.as_str()];
                    if count > 0 {
                        let labels = words.map(str::to_owned).to_vec();
                        show(&catalog::QUOTA_REFUSALS, labels, Value::Counter(count));
                    }
                }
            }
        }
        self.read_remaining(show);
    }
}

impl QuotaMetrics {
    fn read_remaining(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        for ((upstream, model), limits) in self.quotas.kept.remaining.all() {
            // Of models that share a label nobody could tell whose limit it is.
            let Some(model) = self.models.admit(&model, false) else { continue };
            for limit in limits {
                let labels =
                    || vec![model.to_string(), upstream.to_string(), limit.dimension.clone()];
                let gauge = |value: u64| Value::Gauge(i64::try_from(value).unwrap_or(i64::MAX));
                if let Some(value) = limit.limit {
                    show(&catalog::RATE_LIMIT, labels(), gauge(value));
                }
                if let Some(value) = limit.remaining {
                    show(&catalog::RATE_LIMIT_REMAINING, labels(), gauge(value));
                }
            }
        }
    }
}

// === impl Sum ===

impl Sum {
    /// Amounts add up; of shares and times the worst counts.
    fn add(&mut self, line: &Line) {
        let units = |amount| line.kind.units(amount);
        self.limit += units(line.limit);
        self.used += units(line.used);
        self.open += units(line.open);
        self.ratio = self.ratio.max(line.ratio());
        let soonest = [self.exhausted_in_s, line.exhausted_in_s].into_iter().flatten();
        self.exhausted_in_s = soonest.min_by(f64::total_cmp);
    }
}
