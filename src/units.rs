//! Durations and sizes as people write them: `1.5s`, `20ms`, `8MiB`.

use std::time::Duration;

/// Reads a duration with its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let read: jiff::SignedDuration = text.parse().map_err(|_| {
        format!("`{text}` is not a duration; write a number with its unit, such as 1.5s or 20ms")
    })?;
    Duration::try_from(read).map_err(|_| format!("`{text}` is negative"))
}
