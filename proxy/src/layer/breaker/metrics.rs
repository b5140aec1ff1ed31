//! What metrics show of breakers and gates.

use std::sync::Arc;

use tokio::time::Instant;

use super::circuit::Tally;
use super::{Breakers, Position, Snapshot};
use crate::export::catalog::{
    BREAKER_REFUSALS, BREAKER_STATE, BREAKER_TRANSITIONS, Family, RATE_GATE_CLOSED,
};
use crate::export::metrics::{OTHER, Source, Value};

impl Source for Arc<Breakers> {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        for breaker in self.snapshot(Instant::now()) {
            breaker.show(show);
        }
    }
}

impl Snapshot {
    fn show(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let Tally { opened, half_opened, closed, refused_by_breaker, refused_by_gate } = self.tally;
        show(&BREAKER_STATE, self.labels(None), Value::Gauge(self.state.number()));
        for (to, count) in [("open", opened), ("half_open", half_opened), ("closed", closed)] {
            show(&BREAKER_TRANSITIONS, self.labels(Some(to)), Value::Counter(count));
        }
        let closed = i64::try_from(self.rate_gates_closed).unwrap_or(i64::MAX);
        show(&RATE_GATE_CLOSED, self.labels(None), Value::Gauge(closed));
        for (by, count) in [("breaker", refused_by_breaker), ("rate_gate", refused_by_gate)] {
            show(&BREAKER_REFUSALS, self.labels(Some(by)), Value::Counter(count));
        }
    }

    /// In the order of the families' labels.
    fn labels(&self, part: Option<&str>) -> Vec<String> {
        let region = self.region.as_deref().unwrap_or_default();
        let model = self.model.as_deref().unwrap_or(OTHER);
        let labels = [&*self.upstream, region, model].into_iter().chain(part);
        labels.map(str::to_owned).collect()
    }
}

impl Position {
    fn number(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}
