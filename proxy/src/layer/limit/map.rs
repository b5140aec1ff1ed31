//! The doors of one upstream: one, or one for each of its models.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::config::LimitConfig;
use super::door::{Door, DoorState};
use super::sync::Mutex;

/// The doors of one upstream, which all workers share.
#[derive(Debug)]
pub(crate) struct Doors {
    config: LimitConfig,
    /// For calls that name no model; for all where models share.
    common: Arc<Door>,
    models: Mutex<Models>,
}

#[derive(Debug, Default)]
struct Models {
    doors: FxHashMap<Box<str>, Known>,
    /// Counts the looks, so that the one that was not looked at for longest is known.
    looks: u64,
}

#[derive(Debug)]
struct Known {
    door: Arc<Door>,
    look: u64,
}

/// Models of one upstream that have a door of their own, at most: their names are the callers'.
const MAX_MODELS: usize = 64;

impl Doors {
    pub(crate) fn new(config: &LimitConfig) -> Self {
        let common = Arc::new(Door::new(config));
        Self { config: config.clone(), common, models: Mutex::default() }
    }

    /// The door that calls to this model pass.
    pub(crate) fn door(&self, model: Option<&str>) -> Arc<Door> {
        match model {
            Some(model) if self.config.per_model => self.of_model(model),
            _ => self.common.clone(),
        }
    }

    fn of_model(&self, model: &str) -> Arc<Door> {
        let mut models = self.models.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        models.looks += 1;
        let look = models.looks;
        if let Some(known) = models.doors.get_mut(model) {
            known.look = look;
            return known.door.clone();
        }
        if models.doors.len() >= MAX_MODELS && !models.forget_one() {
            return self.common.clone();
        }
        let door = Arc::new(Door::new(&self.config));
        models.doors.insert(model.into(), Known { door: door.clone(), look });
        door
    }

    /// What is going on, by model; without a name that of calls that name none, or share.
    pub(crate) fn states(&self) -> Vec<(Option<Box<str>>, DoorState)> {
        let models = self.models.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let states = models.doors.iter();
        let states = states.map(|(model, known)| (Some(model.clone()), known.door.state()));
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
    /// Makes room: of the doors that nobody holds, the one that was not looked at for longest goes.
    fn forget_one(&mut self) -> bool {
        let idle = self.doors.iter().filter(|(_, known)| Arc::strong_count(&known.door) == 1);
        let oldest = idle.min_by_key(|(_, known)| known.look).map(|(model, _)| model.clone());
        oldest.is_some_and(|model| self.doors.remove(&model).is_some())
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use tokio::time::Instant;

    use super::super::door::Entry;
    use super::super::queue::Priority;
    use super::*;

    fn doors(per_model: bool) -> Doors {
        Doors::new(&LimitConfig { per_model, ..LimitConfig::default() })
    }

    #[test]
    fn models_have_doors_of_their_own_unless_they_share() {
        let own = doors(true);
        assert!(Arc::ptr_eq(&own.door(Some("a")), &own.door(Some("a"))));
        assert!(!Arc::ptr_eq(&own.door(Some("a")), &own.door(Some("b"))));
        assert!(!Arc::ptr_eq(&own.door(Some("a")), &own.door(None)));
        let shared = doors(false);
        assert!(Arc::ptr_eq(&shared.door(Some("a")), &shared.door(None)));
    }

    #[test]
    fn names_without_number_make_no_doors_without_number() {
        let doors = doors(true);
        let enter = |door: Arc<Door>| match door.enter(Priority::Normal, Instant::now()) {
            Ok(Entry::Permit(permit)) => permit,
            other => panic!("there is room: {other:?}"),
        };
        let busy = doors.door(Some("busy"));
        let permit = enter(busy.clone());
        for number in 0..10 * MAX_MODELS {
            doors.door(Some(&format!("m{number}")));
        }
        assert_eq!(doors.states().len(), MAX_MODELS);
        assert!(Arc::ptr_eq(&doors.door(Some("busy")), &busy), "who is inside is not forgotten");
        drop(permit);

        let held = (0..MAX_MODELS).map(|number| doors.door(Some(&format!("h{number}"))));
        let _held: Vec<_> = held.collect();
        drop(busy);
        let more = [doors.door(Some("x")), doors.door(Some("y"))];
        assert!(more.iter().all(|door| Arc::strong_count(door) >= 2), "nobody else is forgotten");
    }
}
