//! When something happened on the way of a call.

/// A wait on the way of a call, and when it was over. It stands in spans; a record's keys have the
/// sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// What was waited for.
    pub name: &'static str,
    /// When the wait was over: seconds from the start of the call.
    pub at_s: f64,
    /// How long it was.
    pub lasted_s: f64,
}
