//! How files that users write are read: a mistake is told with file, line, key and what was perhaps
//! meant; a quantity carries its unit.
//!
//! Sidecar and load generator read theirs alike, and both may go by the same [`Objectives`].

mod limit;
mod metric;
mod mistake;
mod objectives;
mod place;
mod quantity;
mod schema;

pub use limit::Limit;
pub use metric::{Metric, Unit};
pub use mistake::{ConfigError, nearest, parse_yaml, within_file};
pub use objectives::{Abort, Bound, Objective, Objectives};
pub use quantity::{Ratio, Size, Span};
pub use schema::schema;
