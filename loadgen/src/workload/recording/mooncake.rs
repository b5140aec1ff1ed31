//! Mooncake's traces: `{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}`
//! (github.com/kvcache-ai/Mooncake, FAST25-release).

use super::blocks::Trace;
use super::time;

pub(super) static TRACE: Trace = Trace {
    block: 512,
    moment: time::milliseconds,
    moment_is: "number of milliseconds",
    has_chat: false,
};
