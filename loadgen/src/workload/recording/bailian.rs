//! Bailian's (Qwen's) traces: JSON lines with `chat_id`, `timestamp` in seconds, `input_length`,
//! `output_length` and `hash_ids` (github.com/alibaba-edu/qwen-bailian-usagetraces-anon).

use super::blocks::Trace;
use super::time;

pub(super) static TRACE: Trace =
    Trace { block: 16, moment: time::seconds, moment_is: "number of seconds", has_chat: true };
