//! What had come of an answer when its caller left, where it is read on without one: what came later
//! is nobody's, and changes nothing of how the call ended.

use crate::record::Drain;

/// An answer, as its caller last saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// There was a head.
    pub(crate) had_head: bool,
    /// It had said that it failed.
    pub(crate) had_failed: bool,
    /// Chunks with tokens that had come.
    pub(crate) chunks: u64,
    /// Output tokens that it had stated with the last of them, or after it.
    pub(crate) tokens: Option<u64>,
    /// Others get what comes later.
    pub(crate) is_awaited: bool,
}

/// An answer at its end.
pub(crate) struct Whole {
    pub(crate) is_stream: bool,
    /// Chunks with tokens.
    pub(crate) chunks: u64,
    /// Output tokens, as stated for all of it.
    pub(crate) tokens: u64,
}

impl Left {
    /// Says how many output tokens nobody got. What is no stream is of use only whole.
    pub(crate) fn fill(&self, whole: &Whole, drain: &mut Drain) {
        let Whole { is_stream, chunks, tokens } = *whole;
        match self.tokens {
            _ if !is_stream || self.chunks == 0 => drain.wasted_tokens = Some(tokens),
            Some(got) => drain.wasted_tokens = Some(tokens.saturating_sub(got)),
            None => {
                let share = chunks.saturating_sub(self.chunks) as f64 / chunks.max(1) as f64;
                drain.estimated_wasted_tokens = Some((tokens as f64 * share).round() as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_nobody_got_are_told_as_exactly_as_the_answer_states_them() {
        let stated = |tokens| Drain { wasted_tokens: Some(tokens), ..Drain::default() };
        let by_share = |tokens| Drain { estimated_wasted_tokens: Some(tokens), ..Drain::default() };
        for (is_stream, left_at, stated_then, told) in [
            (false, 0, None, stated(100)),
            (false, 1, Some(100), stated(100)),
            (true, 0, None, stated(100)),
            (true, 5, Some(40), stated(60)),
            (true, 5, Some(101), stated(0)),
            (true, 5, None, by_share(75)),
            (true, 20, None, by_share(0)),
        ] {
            let left = Left {
                had_head: true,
                had_failed: false,
                chunks: left_at,
                tokens: stated_then,
                is_awaited: false,
            };
            let mut drain = Drain::default();
            left.fill(&Whole { is_stream, chunks: 20, tokens: 100 }, &mut drain);
            assert_eq!(drain, told, "{is_stream} {left_at} {stated_then:?}");
        }
    }
}
