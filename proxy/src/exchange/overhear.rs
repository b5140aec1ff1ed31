//! Who hears a request body go by, on its way to the upstream.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::Notes;
use crate::activity::Activity;
use crate::recorder::Recorder;

/// Hears a request body, each byte of it once. Dropped before it is over, the body never came whole.
pub(crate) trait Overhear {
    /// The next of its payload.
    fn piece(&mut self, payload: &[u8]);

    /// All of it at once, whatever came before.
    fn whole(&mut self, body: &[u8]);

    /// It was read whole.
    fn is_over(self: Box<Self>);
}

/// Whoever does, if anybody.
#[derive(Default)]
pub(super) struct Overhearing(RefCell<Option<Box<dyn Overhear>>>);

impl Notes {
    /// Has this hear the request body from its first byte on.
    pub(crate) fn overheard_by(&self, who: impl Overhear + 'static) {
        self.overhearing.0.replace(Some(Box::new(who)));
    }

    /// What another call of the same worker needs to be recorded.
    pub(crate) fn carriers(&self) -> (Recorder, Arc<Activity>) {
        (self.recorder.clone(), self.activity.clone())
    }
}

impl Overhearing {
    pub(super) fn piece(&self, payload: &[u8]) {
        if let Some(who) = &mut *self.0.borrow_mut() {
            who.piece(payload);
        }
    }

    pub(super) fn whole(&self, body: &[u8]) {
        if let Some(who) = &mut *self.0.borrow_mut() {
            who.whole(body);
        }
    }

    pub(super) fn is_over(&self) {
        if let Some(who) = self.0.take() {
            who.is_over();
        }
    }

    /// Nothing more will be heard.
    pub(super) fn end(&self) {
        drop(self.0.take());
    }
}

impl fmt::Debug for Overhearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overhearing")
    }
}
