//! What a call holds of budgets until it is known what it used.
//!
//! It is no usage, and is never told as such: it keeps many calls at once from spending what there is
//! but once.

use super::amounts::Amounts;
use super::charge::generates;
use super::config::Reserve;
use super::expect::{Expected, Usual};

/// What is known of a call before it goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// The operation, where the call is one of a model.
    pub(super) operation: Option<&'a str>,
    /// Bytes of the request, where its head says so or it is at hand.
    pub(super) bytes: Option<u64>,
    /// The most output tokens that it says it wants.
    pub(super) most: Option<u64>,
}

/// What a call holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds {
    /// What is usual, and no more than it asks for.
    average: Amounts,
    /// The most that it asks for.
    utmost: Amounts,
    /// What it says itself that it may take.
    pub(super) stated: Amounts,
}

impl Holds {
    /// What this call holds and is expected to use, where calls to its model use so much.
    pub(super) fn of(
        ask: &Ask<'_>,
        usual: &Usual,
        cost: impl Fn(u64, u64) -> u64,
    ) -> (Self, Expected) {
        let Some(operation) = ask.operation.filter(|operation| generates(operation)) else {
            return (Self::least(ask.operation), Expected::default());
        };
        let most = ask.most.filter(|_| operation != "embeddings");
        let expected = Expected {
            input: usual.input(ask.bytes),
            output: if operation == "embeddings" { 0 } else { usual.output(most) },
        };
        let utmost = most.unwrap_or(expected.output);
        // Where nothing has been learned, what it says itself is all there is to go by.
        let average = if usual.is_known() { expected.output } else { utmost };
        let amounts = |output: u64| {
            let cost = cost(expected.input, output);
            Amounts::of_request(expected.input, output, cost.max(1))
        };
        let holds = Self {
            average: amounts(average),
            utmost: amounts(utmost),
            stated: Amounts::of_request(0, most.unwrap_or(0), 0),
        };
        (holds, expected)
    }

    /// Of calls of which nobody knows what they use: a little of all that they may use, so that none
    /// gets in where all is spent.
    fn least(operation: Option<&str>) -> Self {
        let least = match operation {
            Some("count_tokens") => Amounts::of_request(0, 0, 0),
            _ => Amounts::of_request(1, 1, 1),
        };
        Self { average: least, utmost: least, stated: Amounts::default() }
    }

    /// Of a budget of such a quota.
    pub(super) fn by(&self, reserve: Reserve) -> Amounts {
        match reserve {
            Reserve::Average => self.average,
            Reserve::Most => self.utmost,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{Outcome, Record, UsageSource};

    use super::super::amounts::Kind;
    use super::*;

    const CHAT: Ask<'_> = Ask { operation: Some("chat"), bytes: Some(400), most: Some(5_000) };

    /// A dollar is a token.
    fn hold(ask: &Ask<'_>, usual: &Usual) -> (Holds, Expected) {
        Holds::of(ask, usual, |input, output| input + output)
    }

    fn usual(output: u64) -> Usual {
        let mut usual = Usual::default();
        usual.see(&Record {
            request_bytes: Some(400),
            input_tokens: Some(100),
            output_tokens: Some(output),
            usage_source: Some(UsageSource::Reported),
            outcome: Some(Outcome::Completed),
            ..Record::default()
        });
        usual
    }

    #[test]
    fn a_call_holds_what_is_usual_or_all_that_it_asks_for() {
        let (holds, expected) = hold(&CHAT, &usual(300));
        assert_eq!(expected, Expected { input: 100, output: 300 });
        assert_eq!(holds.by(Reserve::Average), Amounts::of_request(100, 300, 400));
        assert_eq!(holds.by(Reserve::Most), Amounts::of_request(100, 5_000, 5_100));
        assert_eq!(holds.stated, Amounts::of_request(0, 5_000, 0));
    }

    #[test]
    fn where_nothing_is_known_a_call_holds_what_it_says_itself() {
        let (holds, expected) = hold(&CHAT, &Usual::default());
        assert_eq!(holds.by(Reserve::Average)[Kind::OutputTokens], 5_000);
        assert_eq!(expected.output, 1_024, "but is not charged so much where it leaves");
        let (holds, _) = hold(&Ask { most: None, ..CHAT }, &Usual::default());
        assert_eq!(holds.by(Reserve::Most)[Kind::OutputTokens], 1_024);
    }

    #[test]
    fn a_call_holds_no_more_than_it_asks_for() {
        let (holds, expected) = hold(&Ask { most: Some(20), ..CHAT }, &usual(300));
        assert_eq!(holds.by(Reserve::Average)[Kind::OutputTokens], 20);
        assert_eq!(expected.output, 20);
    }

    #[test]
    fn embeddings_have_no_output_and_who_counts_tokens_uses_none() {
        let of = |operation| {
            let ask = Ask { operation, ..CHAT };
            hold(&ask, &usual(300)).0.by(Reserve::Most)
        };
        assert_eq!(of(Some("embeddings")), Amounts::of_request(100, 0, 100));
        assert_eq!(of(Some("count_tokens")), Amounts::of_request(0, 0, 0));
        assert_eq!(of(Some("predict_long_running")), Amounts::of_request(1, 1, 1));
        assert_eq!(of(None), Amounts::of_request(1, 1, 1));
    }
}
