//! The load test: Goose carries the users; client, clock and recorder are ours.
//!
//! [`run`] takes a [`Plan`] and gives a [`Report`](report::Report). Every call is seen by the same
//! `wire::Observer` that the sidecar has, and every time counts from when the call was due.

mod budget;
mod client;
mod compare;
mod estimate;
mod feed;
mod figures;
mod interrupt;
mod news;
mod other_side;
mod plan;
mod recorder;
mod resume;
mod run;
mod screen;
mod search;
mod signing;
mod tickets;
mod timer;
mod user;
mod verdict;

pub mod report;
pub mod schedule;
pub mod sim;
pub mod workload;

pub use budget::{Caps, Spent};
pub use client::{InvalidTarget, Target};
pub use estimate::{Estimate, Forecast};
pub use interrupt::interrupts;
pub use other_side::{Unwatchable, Watch};
pub use plan::Plan;
pub use recorder::CallRecord;
pub use reqwest::Url;
pub use resume::{Resume, Unresumable};
pub use run::{Error, run};
pub use screen::stderr;
pub use search::{Load, Search, Unsearchable, search};
pub use signing::{InvalidCredential, read_credential};
