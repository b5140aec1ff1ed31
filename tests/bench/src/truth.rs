//! Whether what the sidecar records is so: the mock knows when it wrote each first token.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde_json::Value;

use crate::client::histogram;
use tidegate_bench::workload;

/// How far from the truth a record may be before something other than delay must be wrong: the two
/// clocks of a record are read one after the other, and the process may be put aside in between.
const EARLIEST: i128 = -5_000_000;

/// How far from the moment when the mock wrote the first token of a stream its record says that it
/// came, in nanoseconds. A record that says it came well before it was written fails the run.
pub(crate) fn first_token_off(records: &Path) -> Result<Histogram<u64>> {
    let text = fs::read_to_string(records)
        .with_context(|| format!("reading the records in {}", records.display()))?;
    let mut off = histogram();
    for line in text.lines() {
        if let Some(nanos) = off_by(&serde_json::from_str(line).context("reading a record")?)? {
            ensure!(nanos > EARLIEST, "a token was recorded {} ns before it was sent", -nanos);
            off.saturating_record(nanos.unsigned_abs() as u64);
        }
    }
    Ok(off)
}

/// Recorded less true; none where the record is not of a stream.
fn off_by(record: &Value) -> Result<Option<i128>> {
    let first = record["tidegate.time_to_first_token_s"].as_f64();
    let written = record["gen_ai.response.id"].as_str().and_then(workload::first_written);
    let Some((first, written)) = first.zip(written) else { return Ok(None) };
    let begin: Timestamp = record["time"].as_str().context("a record without its time")?.parse()?;
    Ok(Some(begin.as_nanosecond() + (first * 1e9) as i128 - written))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_off_by_what_it_says_less_what_its_id_says() {
        let id = "chatcmpl-000000000000000";
        let written = workload::first_written(id).expect("a stamp");
        let begin = Timestamp::from_nanosecond(written - 5_000_000).expect("a time");
        let record = json!({
            "time": format!("{begin:.9}"),
            "gen_ai.response.id": id,
            "tidegate.time_to_first_token_s": 0.006,
        });
        assert_eq!(off_by(&record).expect("a record"), Some(1_000_000));
        assert_eq!(off_by(&json!({ "gen_ai.response.id": id })).expect("a record"), None);
    }
}
