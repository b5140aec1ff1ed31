//! BurstGPT: `Timestamp,Model,Request tokens,Response tokens,...`, and in later files a session.
//!
//! A call that failed has no response tokens; it was made all the same, and is made again
//! (github.com/HPMLL/BurstGPT).

use super::columns::Trace;
use super::time;

pub(super) static TRACE: Trace = Trace {
    columns: ["Timestamp", "Request tokens", "Response tokens"],
    moment: time::seconds,
    moment_is: "number of seconds",
};
