//! What the metrics show of the limits of an upstream.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Limits;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Names, OTHER, Source, UNKNOWN, Value};

/// The limits of an upstream, and the models that may be label values.
pub(crate) struct LimitMetrics {
    pub(crate) limits: Arc<Limits>,
    pub(crate) models: Arc<Names>,
}

impl LimitMetrics {
    fn label(&self, model: Option<&str>) -> String {
        match model {
            Some(model) => {
                self.models.admit(model, false).map_or(OTHER.into(), |name| name.to_string())
            }
            None if self.limits.asks_for_model() => UNKNOWN.to_owned(),
            // All models share.
            None => String::new(),
        }
    }
}

impl Source for LimitMetrics {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let Limits { upstream, doors, queue_full, queue_timeout, .. } = &*self.limits;
        for (model, state) in doors.states() {
            let labels = || vec![self.label(model.as_deref()), upstream.to_string()];
            show(&catalog::LIMIT, labels(), Value::Gauge(state.limit.into()));
            show(&catalog::LIMIT_IN_USE, labels(), Value::Gauge(state.in_use.into()));
            show(&catalog::LIMIT_QUEUE, labels(), Value::Gauge(state.queue.into()));
        }
        for (reason, count) in [("queue_full", queue_full), ("queue_timeout", queue_timeout)] {
            let labels = vec![upstream.to_string(), reason.to_owned()];
            show(&catalog::LIMIT_SHED, labels, Value::Counter(count.load(Relaxed)));
        }
    }
}
