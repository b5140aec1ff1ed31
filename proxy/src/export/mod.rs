//! Where measurements go. Everything here is fed from records, and none of it looks back.
//!
//! Metrics are counted by the workers themselves and read by [`prometheus`] and [`otlp`] alike.
//! Exporters of records implement [`Exporter`]; the recorder's thread runs them, off the data path.

pub mod catalog;
pub mod jsonl;
pub mod metrics;
pub mod otlp;
pub mod prometheus;

use tidegate_wire::Record;

/// Takes records where someone reads them.
///
/// Runs on a thread of its own and may block there: what does not fit the queue meanwhile is
/// dropped and counted.
pub trait Exporter: Send {
    /// The value of the label `exporter`.
    fn name(&self) -> &'static str;

    /// Takes these records, to the last one before it returns. Says how many of them were lost.
    fn export(&mut self, records: &[Record]) -> u64;

    /// Takes up its destination anew: an operator has moved the file away.
    fn reopen(&mut self) {}
}
