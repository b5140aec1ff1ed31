//! What the benches have in common: the machine, what a process uses, and an upstream that costs next to
//! nothing.

pub mod http;
pub mod machine;
pub mod mock;
pub mod usage;
pub mod workload;
