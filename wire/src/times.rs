//! When the parts of an answer came: the one place that says what a first token, a gap and a stall
//! are, for sidecar and load generator alike.
//!
//! A token is an event with text, reasoning or a piece of a tool's arguments; a gap lies between
//! two tokens that follow each other. Two that came at once have a gap of nothing between them.

use std::time::Duration;

use crate::Record;

/// A gap longer than this is a stall.
const STALL: Duration = Duration::from_secs(1);
/// Shorter gaps are told as none.
const SHORTEST: Duration = Duration::from_micros(100);
/// What a bucket ends at, in what it begins at: its middle is less than 5 % away from either.
const RATIO: f64 = 1.1;
/// One for what is shorter, and as many as reach up to an hour.
const BUCKETS: usize = 185;

/// When the parts of an answer came, as offsets from the start of the call.
#[derive(Debug, Default)]
pub(crate) struct Times {
    first_byte: Option<Duration>,
    first_event: Option<Duration>,
    first_token: Option<Duration>,
    first_visible: Option<Duration>,
    last_token: Option<Duration>,
    /// Events with tokens.
    chunks: u64,
    gaps: Option<Box<Gaps>>,
    kept: Option<Vec<Duration>>,
}

/// The gaps between tokens, by length: 400 bytes, however long the stream is.
#[derive(Debug)]
struct Gaps {
    /// By length, each a tenth longer than the one before.
    counts: [u16; BUCKETS],
    longest: Duration,
    stalls: u64,
}

// === impl Times ===

impl Times {
    /// Keeps the time of every token from here on.
    pub(crate) fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// The times that were kept.
    pub(crate) fn kept(&self) -> &[Duration] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// When the first token came.
    pub(crate) fn first_token(&self) -> Option<Duration> {
        self.first_token
    }

    /// Whether a token has come.
    pub(crate) fn has_token(&self) -> bool {
        self.first_token.is_some()
    }

    /// Events with tokens that have come.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Bytes of the body have come.
    pub(crate) fn byte(&mut self, now: Duration) {
        self.first_byte.get_or_insert(now);
    }

    /// An event, or a JSON text, has come whole.
    pub(crate) fn event(&mut self, now: Duration) {
        self.first_event.get_or_insert(now);
    }

    /// It bears a token.
    pub(crate) fn token(&mut self, now: Duration, is_visible: bool) {
        if let Some(last) = self.last_token.replace(now) {
            self.gaps.get_or_insert_default().add(now.saturating_sub(last));
        }
        self.chunks += 1;
        self.first_token.get_or_insert(now);
        if is_visible {
            self.first_visible.get_or_insert(now);
        }
        if let Some(kept) = &mut self.kept {
            kept.push(now);
        }
    }

    /// Tells them to the record of a stream, whose output tokens are known by now.
    pub(crate) fn fill(&self, record: &mut Record) {
        let seconds = |at: Option<Duration>| at.map(|at| at.as_secs_f64());
        record.time_to_first_body_byte_s = seconds(self.first_byte);
        record.time_to_first_event_s = seconds(self.first_event);
        record.time_to_first_token_s = seconds(self.first_token);
        record.time_to_first_visible_token_s = seconds(self.first_visible);
        record.time_to_last_token_s = seconds(self.last_token);
        record.time_per_output_token_s = self.per_output_token(record.output_tokens);
        record.token_chunks = Some(self.chunks).filter(|chunks| *chunks > 0);
        if let Some(gaps) = &self.gaps {
            record.gap_p50_s = Some(gaps.quantile(0.5));
            record.gap_p99_s = Some(gaps.quantile(0.99));
            record.gap_max_s = Some(gaps.longest.as_secs_f64());
            record.stalls = Some(gaps.stalls);
        }
    }

    /// (Last token − first token) / (output tokens − 1).
    fn per_output_token(&self, output_tokens: Option<u64>) -> Option<f64> {
        let steps = output_tokens.filter(|count| *count >= 2)? - 1;
        let span = self.last_token?.saturating_sub(self.first_token?);
        Some(span.as_secs_f64() / steps as f64)
    }
}

// === impl Gaps ===

impl Gaps {
    fn add(&mut self, gap: Duration) {
        let count = &mut self.counts[bucket(gap)];
        *count += 1;
        if *count == u16::MAX {
            // Quantiles live by proportions, and these stay as they are.
            self.counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
        }
        self.longest = self.longest.max(gap);
        self.stalls += u64::from(gap > STALL);
    }

    /// The shortest gap that this share of all is no longer than, in seconds.
    fn quantile(&self, share: f64) -> f64 {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let wanted = (share * all as f64).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        middle(found.unwrap_or(BUCKETS - 1)).min(self.longest.as_secs_f64())
    }
}

impl Default for Gaps {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], longest: Duration::ZERO, stalls: 0 }
    }
}

fn bucket(gap: Duration) -> usize {
    let ratio = gap.as_secs_f64() / SHORTEST.as_secs_f64();
    if ratio < 1.0 {
        return 0;
    }
    // The cast cuts off, as it should.
    (1 + (ratio.ln() / RATIO.ln()) as usize).min(BUCKETS - 1)
}

/// The length that stands for all in a bucket, in seconds.
fn middle(bucket: usize) -> f64 {
    match bucket {
        0 => 0.0,
        _ => SHORTEST.as_secs_f64() * RATIO.powf(bucket as f64 - 0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(tokens: impl IntoIterator<Item = Duration>) -> Record {
        let mut times = Times::default();
        tokens.into_iter().for_each(|at| times.token(at, true));
        let mut record = Record::default();
        times.fill(&mut record);
        record
    }

    #[test]
    fn any_gap_up_to_an_hour_is_told_to_within_five_percent() {
        let mut gap = 100e-6;
        while gap < 3600.0 {
            let told = middle(bucket(Duration::from_secs_f64(gap)));
            assert!((told / gap - 1.0).abs() <= 0.05, "{gap} s is told as {told} s");
            gap *= 1.003;
        }
        assert_eq!(bucket(Duration::from_secs(1 << 40)), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_gaps_and_the_longest_is_exact() {
        // 97 gaps of 20 ms, two of 500 ms, one of 1,234.5 ms.
        let gaps = [20.0; 97].into_iter().chain([500.0, 500.0, 1234.5]);
        let mut at = 0.0;
        let tokens = gaps.map(|gap| {
            at += gap / 1000.0;
            Duration::from_secs_f64(at)
        });
        let record = times([Duration::ZERO].into_iter().chain(tokens));
        let near = |told: Option<f64>, is: f64| (told.expect("a figure") / is - 1.0).abs() <= 0.05;
        assert!(near(record.gap_p50_s, 0.020), "{:?}", record.gap_p50_s);
        assert!(near(record.gap_p99_s, 0.500), "{:?}", record.gap_p99_s);
        assert!((record.gap_max_s.expect("a figure") - 1.2345).abs() < 1e-6);
        assert_eq!((record.token_chunks, record.stalls), (Some(101), Some(1)));
    }

    #[test]
    fn one_token_has_no_gap_and_none_has_nothing() {
        let record = times([Duration::from_secs(1)]);
        assert_eq!((record.token_chunks, record.gap_max_s, record.stalls), (Some(1), None, None));
        assert_eq!(times([]), Record::default());
    }

    #[test]
    fn a_stall_is_longer_than_a_second() {
        let second = Duration::from_secs(1);
        assert_eq!(times([Duration::ZERO, second]).stalls, Some(0));
        let longer = second + Duration::from_nanos(1);
        assert_eq!(times([Duration::ZERO, longer]).stalls, Some(1));
    }

    #[test]
    fn tokens_that_came_at_once_have_no_time_between_them() {
        let record = times([Duration::from_secs(1); 3]);
        assert_eq!((record.gap_p50_s, record.gap_max_s), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn a_stream_of_any_length_keeps_its_quantiles() {
        let mut gaps = Gaps::default();
        for at in 0..1_000_000 {
            gaps.add(Duration::from_millis(if at % 20 == 0 { 300 } else { 20 }));
        }
        assert!((gaps.quantile(0.5) / 0.020 - 1.0).abs() <= 0.05);
        assert!((gaps.quantile(0.99) / 0.300 - 1.0).abs() <= 0.05);
        assert!(size_of::<Gaps>() <= 400, "{} bytes", size_of::<Gaps>());
    }
}
