//! What a call that is over is charged.
//!
//! What the provider states of the whole call is charged, and nothing else. Where it did not come to
//! that, this is the rule:
//!
//! | the call | input | output |
//! |---|---|---|
//! | was an error, or is of a kind that uses no tokens | what is stated, mostly none | likewise |
//! | was answered whole, without usage | what was expected | what came, or else what was expected |
//! | was broken off by its provider | what is stated, else expected | what is stated or came |
//! | was left by its caller, or cut by us | what is stated, else expected | the most of what is stated, came and was expected |
//!
//! Who leaves is charged for an answer of the usual length, because its provider goes on with it for
//! a while, and most bill it to the end. So to hang up just before the usage comes saves nothing. A
//! call of which nothing was sent is charged nothing, not even a request.

use tidegate_wire::{ErrorOrigin, Outcome, Prices, Record, UsageSource};

use super::amounts::{Amounts, nanodollars};
use super::expect::{Expected, Usual};
use super::tally::Basis;

/// What a call is charged, and what that goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) amounts: Amounts,
    /// Tokens among them that nobody stated.
    pub(super) estimated: (Option<u64>, Option<u64>),
    /// Whether it used something that has no price.
    is_unpriced: bool,
}

/// How a call went, as far as its tokens go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// All that it used is stated, or it used nothing.
    Told,
    /// It is whole, and says nothing of its tokens.
    Silent,
    /// Its provider gave up.
    Broken,
    /// Its caller left, or we cut it.
    Left,
}

// === impl Charge ===

impl Charge {
    /// What the call of this record is charged, of which so much was expected; `prices` is absent where
    /// no quota is about money.
    pub(super) fn of(
        record: &Record,
        expected: Expected,
        usual: &Usual,
        prices: Option<&Prices>,
    ) -> Self {
        if record.sent_s.is_none() {
            let (amounts, estimated) = (Amounts::default(), (None, None));
            return Self { amounts, estimated, is_unpriced: false };
        }
        let (input, output) = tokens(record, expected, usual);
        let beyond = |tokens: Option<u64>, stated: Option<u64>| {
            tokens.filter(|tokens| *tokens > stated.unwrap_or(0))
        };
        let estimated = (beyond(input, record.input_tokens), beyond(output, record.output_tokens));
        let cost = match estimated {
            (None, None) => record.cost_usd,
            _ => prices.and_then(|prices| cost_of(record, input, output, prices)),
        };
        let has_used = input.is_some() || output.is_some() || record.unpriced == Some(true);
        let [input, output] = [input, output].map(Option::unwrap_or_default);
        Self {
            amounts: Amounts::of_request(input, output, cost.map_or(0, nanodollars)),
            estimated,
            is_unpriced: has_used && cost.is_none(),
        }
    }

    /// What it goes by, for a quota that is about money or not.
    pub(super) fn basis(&self, is_about_money: bool) -> Basis {
        match self.estimated {
            _ if self.is_unpriced && is_about_money => Basis::Unpriced,
            (None, None) => Basis::Stated,
            _ => Basis::Estimated,
        }
    }
}

/// The tokens that are charged: stated, expected or delivered.
fn tokens(record: &Record, expected: Expected, usual: &Usual) -> (Option<u64>, Option<u64>) {
    let stated = (record.input_tokens, record.output_tokens);
    let input = || stated.0.or(Some(expected.input));
    let delivered = usual.delivered(record);
    let at_least = |tokens: u64| stated.1.max(Some(tokens)).filter(|tokens| *tokens > 0);
    match course(record) {
        Course::Told => stated,
        Course::Silent if delivered > 0 => (input(), at_least(delivered)),
        Course::Silent => (input(), at_least(expected.output)),
        Course::Broken => (input(), at_least(delivered)),
        Course::Left => (input(), at_least(delivered.max(expected.output))),
    }
}

fn course(record: &Record) -> Course {
    let is_ours = record.error_origin == Some(ErrorOrigin::Sidecar) || is_late(record);
    let states_all = record.usage_source == Some(UsageSource::Reported);
    match record.outcome {
        _ if states_all || !uses_tokens(record) => Course::Told,
        Some(Outcome::Completed) => Course::Silent,
        Some(Outcome::Abandoned) => Course::Left,
        Some(Outcome::Truncated | Outcome::Failed) if is_ours => Course::Left,
        Some(Outcome::Truncated) => Course::Broken,
        Some(Outcome::Failed) if record.token_chunks.is_some() => Course::Broken,
        _ => Course::Told,
    }
}

/// Whether somebody waited no longer, while the provider perhaps went on.
fn is_late(record: &Record) -> bool {
    const LATE: [&str; 4] = [
        "total_timeout",
        "first_token_timeout",
        "upstream_response_timeout",
        "upstream_idle_timeout",
    ];
    record.error_type.as_deref().is_some_and(|kind| LATE.contains(&kind))
}

/// Whether calls of this kind use tokens, and have something to state.
pub(super) fn uses_tokens(record: &Record) -> bool {
    let is_counting = record.counted_tokens.is_some();
    let makes_images = record.media.as_ref().is_some_and(|media| media.images_made.is_some());
    record.operation.as_deref().is_some_and(generates) && !is_counting && !makes_images
}

/// Whether an operation uses tokens.
pub(super) fn generates(operation: &str) -> bool {
    matches!(operation, "chat" | "generate_content" | "text_completion" | "embeddings")
}

/// What so many tokens cost, used by the call of this record.
fn cost_of(
    record: &Record,
    input: Option<u64>,
    output: Option<u64>,
    prices: &Prices,
) -> Option<f64> {
    let as_if = Record {
        input_tokens: input,
        output_tokens: output,
        usage_source: Some(UsageSource::Reported),
        content: None,
        ..record.clone()
    };
    prices.cost(&as_if).usd
}

#[cfg(test)]
mod tests {
    use tidegate_wire::Media;

    use super::super::amounts::Kind;
    use super::*;

    const EXPECTED: Expected = Expected { input: 100, output: 50 };

    /// A stream that was sent, of which nothing was stated and three tokens came.
    fn cut(outcome: Outcome) -> Record {
        Record {
            operation: Some("chat".into()),
            sent_s: Some(0.1),
            token_chunks: Some(3),
            outcome: Some(outcome),
            ..Record::default()
        }
    }

    fn charge(record: &Record) -> Charge {
        Charge::of(record, EXPECTED, &Usual::default(), Some(&Prices::default()))
    }

    /// Input and output that are charged.
    fn tokens(record: &Record) -> (u64, u64) {
        let amounts = charge(record).amounts;
        assert_eq!(amounts[Kind::Requests], 1);
        assert_eq!(amounts[Kind::Tokens], amounts[Kind::InputTokens] + amounts[Kind::OutputTokens]);
        (amounts[Kind::InputTokens], amounts[Kind::OutputTokens])
    }

    #[test]
    fn what_is_stated_of_the_whole_is_charged_however_the_call_ended() {
        for outcome in [Outcome::Completed, Outcome::Abandoned, Outcome::Truncated, Outcome::Failed]
        {
            let record = Record {
                input_tokens: Some(7),
                output_tokens: Some(2),
                usage_source: Some(UsageSource::Reported),
                ..cut(outcome)
            };
            assert_eq!(tokens(&record), (7, 2), "{outcome:?}");
            assert_eq!(charge(&record).estimated, (None, None));
        }
    }

    #[test]
    fn who_leaves_before_the_usage_comes_is_charged_what_was_expected_or_more_where_more_came() {
        assert_eq!(tokens(&cut(Outcome::Abandoned)), (100, 50));
        assert_eq!(charge(&cut(Outcome::Abandoned)).estimated, (Some(100), Some(50)));
        let long = Record { token_chunks: Some(80), ..cut(Outcome::Abandoned) };
        assert_eq!(tokens(&long), (100, 80));
        let begun = Record {
            input_tokens: Some(7),
            output_tokens: Some(1),
            usage_source: Some(UsageSource::Partial),
            ..cut(Outcome::Abandoned)
        };
        assert_eq!(tokens(&begun), (7, 50));
        assert_eq!(charge(&begun).estimated, (None, Some(50)));
        let before_all = Record { token_chunks: None, ..cut(Outcome::Abandoned) };
        assert_eq!(tokens(&before_all), (100, 50));
    }

    #[test]
    fn whom_we_cut_is_charged_as_who_leaves() {
        let ours = Record { error_origin: Some(ErrorOrigin::Sidecar), ..cut(Outcome::Truncated) };
        assert_eq!(tokens(&ours), (100, 50));
        for kind in ["total_timeout", "first_token_timeout", "upstream_response_timeout"] {
            let late = Record {
                error_type: Some(kind.to_owned()),
                token_chunks: None,
                ..cut(Outcome::Failed)
            };
            assert_eq!(tokens(&late), (100, 50), "{kind}");
        }
    }

    #[test]
    fn what_a_provider_broke_off_is_charged_as_far_as_it_came() {
        assert_eq!(tokens(&cut(Outcome::Truncated)), (100, 3));
        assert_eq!(tokens(&cut(Outcome::Failed)), (100, 3));
    }

    #[test]
    fn an_error_costs_a_request_and_what_never_left_costs_nothing() {
        let error = Record { token_chunks: None, status: Some(429), ..cut(Outcome::Failed) };
        assert_eq!(tokens(&error), (0, 0));
        let unsent = Record { sent_s: None, ..cut(Outcome::Abandoned) };
        assert_eq!(charge(&unsent).amounts, Amounts::default());
    }

    #[test]
    fn a_whole_answer_without_usage_is_charged_by_what_came_of_it() {
        assert_eq!(tokens(&cut(Outcome::Completed)), (100, 3));
        let whole = Record { token_chunks: None, ..cut(Outcome::Completed) };
        assert_eq!(tokens(&whole), (100, 50));
    }

    #[test]
    fn calls_that_use_no_tokens_are_charged_none() {
        let media = Media { images_made: Some(1), ..Media::default() };
        for record in [
            Record { operation: None, ..cut(Outcome::Completed) },
            Record { operation: Some("rerank".into()), ..cut(Outcome::Completed) },
            Record { counted_tokens: Some(9), ..cut(Outcome::Completed) },
            Record { media: Some(Box::new(media)), ..cut(Outcome::Completed) },
        ] {
            assert_eq!(tokens(&record), (0, 0), "{record:?}");
        }
    }

    #[test]
    fn what_is_estimated_is_priced_as_if_it_were_stated_and_what_has_no_price_is_told() {
        let table = "version: a\nprices: [{ models: [m], input: 10, output: 20 }]";
        let prices: Prices = crate::config::parse_yaml(table).expect("a good table");
        let left = Record { request_model: Some("m".into()), ..cut(Outcome::Abandoned) };
        let usual = Usual::default();
        let charge = Charge::of(&left, EXPECTED, &usual, Some(&prices));
        assert_eq!(charge.amounts[Kind::Cost], nanodollars(100.0 * 1e-5 + 50.0 * 2e-5));
        assert_eq!(charge.basis(true), Basis::Estimated);

        let other = Record { request_model: Some("n".into()), ..left };
        let charge = Charge::of(&other, EXPECTED, &usual, Some(&prices));
        assert_eq!(charge.amounts[Kind::Cost], 0);
        assert_eq!((charge.basis(true), charge.basis(false)), (Basis::Unpriced, Basis::Estimated));
    }
}
