//! The gates of one upstream: one, or one for each of its models.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::config::LimitConfig;
use super::gate::{Gate, GateState};
use super::sync::Mutex;

/// The gates of one upstream, which all workers share.
#[derive(Debug)]
pub(crate) struct Gates {
    config: LimitConfig,
    /// For calls that name no model; for all where models share.
    common: Arc<Gate>,
    models: Mutex<Models>,
}

#[derive(Debug, Default)]
struct Models {
    gates: FxHashMap<Box<str>, Known>,
    /// Counts the looks, so that the one that was not looked at for longest is known.
    looks: u64,
}

#[derive(Debug)]
struct Known {
    gate: Arc<Gate>,
    look: u64,
}

/// Models of one upstream that have a gate of their own, at most: their names are the callers'.
const MAX_MODELS: usize = 64;

impl Gates {
    pub(crate) fn new(config: &LimitConfig) -> Self {
        let common = Arc::new(Gate::new(config));
        Self { config: config.clone(), common, models: Mutex::default() }
    }

    /// The gate that calls to this model pass.
    pub(crate) fn gate(&self, model: Option<&str>) -> Arc<Gate> {
        match model {
            Some(model) if self.config.per_model => self.of_model(model),
            _ => self.common.clone(),
        }
    }

    fn of_model(&self, model: &str) -> Arc<Gate> {
        let mut models = self.models.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        models.looks += 1;
        let look = models.looks;
        if let Some(known) = models.gates.get_mut(model) {
            known.look = look;
            return known.gate.clone();
        }
        if models.gates.len() >= MAX_MODELS && !models.forget_one() {
            return self.common.clone();
        }
        let gate = Arc::new(Gate::new(&self.config));
        models.gates.insert(model.into(), Known { gate: gate.clone(), look });
        gate
    }

    /// What is going on, by model; without a name that of calls that name none, or share.
    pub(crate) fn states(&self) -> Vec<(Option<Box<str>>, GateState)> {
        let models = self.models.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let states = models.gates.iter();
        let states = states.map(|(model, known)| (Some(model.clone()), known.gate.state()));
        let mut states: Vec<_> = states.collect();
        drop(models);
        states.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if !self.config.per_model || self.common.is_used() {
            states.insert(0, (None, self.common.state()));
        }
        states
    }
}

impl Models {
    /// Makes room: of the gates that nobody holds, the one that was not looked at for longest goes.
    fn forget_one(&mut self) -> bool {
        let idle = self.gates.iter().filter(|(_, known)| Arc::strong_count(&known.gate) == 1);
        let oldest = idle.min_by_key(|(_, known)| known.look).map(|(model, _)| model.clone());
        oldest.is_some_and(|model| self.gates.remove(&model).is_some())
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use tokio::time::Instant;

    use super::super::gate::Entry;
    use super::super::queue::Priority;
    use super::*;

    fn gates(per_model: bool) -> Gates {
        Gates::new(&LimitConfig { per_model, ..LimitConfig::default() })
    }

    #[test]
    fn models_have_gates_of_their_own_unless_they_share() {
        let own = gates(true);
        assert!(Arc::ptr_eq(&own.gate(Some("a")), &own.gate(Some("a"))));
        assert!(!Arc::ptr_eq(&own.gate(Some("a")), &own.gate(Some("b"))));
        assert!(!Arc::ptr_eq(&own.gate(Some("a")), &own.gate(None)));
        let shared = gates(false);
        assert!(Arc::ptr_eq(&shared.gate(Some("a")), &shared.gate(None)));
    }

    #[test]
    fn names_without_number_make_no_gates_without_number() {
        let gates = gates(true);
        let enter = |gate: Arc<Gate>| match gate.enter(Priority::Normal, Instant::now()) {
            Ok(Entry::Permit(permit)) => permit,
            other => panic!("there is room: {other:?}"),
        };
        let busy = gates.gate(Some("busy"));
        let permit = enter(busy.clone());
        for number in 0..10 * MAX_MODELS {
            gates.gate(Some(&format!("m{number}")));
        }
        assert_eq!(gates.states().len(), MAX_MODELS);
        assert!(Arc::ptr_eq(&gates.gate(Some("busy")), &busy), "who is inside is not forgotten");
        drop(permit);

        let held = (0..MAX_MODELS).map(|number| gates.gate(Some(&format!("h{number}"))));
        let _held: Vec<_> = held.collect();
        drop(busy);
        let more = [gates.gate(Some("x")), gates.gate(Some("y"))];
        assert!(more.iter().all(|gate| Arc::strong_count(gate) >= 2), "nobody else is forgotten");
    }
}
