//! How files that users write are read: a mistake is told with file, line, key and what was perhaps
//! meant; a quantity carries its unit.
//!
//! Sidecar and load generator read theirs alike.

mod mistake;
mod place;
mod quantity;
mod schema;

pub use mistake::{ConfigError, nearest, parse_yaml, within_file};
pub use quantity::{Ratio, Size, Span};
pub use schema::schema;
