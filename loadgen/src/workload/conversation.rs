//! Conversations: what is said next, once an answer is there.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use super::written::{Ask, Role, Turn};
use super::{BYTES_OF_TOKEN, Entry, Request, Synthetic};

/// The rest of a conversation, of which the last question waits for its answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversation {
    pub(super) ask: Ask,
    pub(super) entry: Entry,
}

/// A question to come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Later {
    pub(crate) text: String,
    /// The most tokens that its answer may have.
    pub(crate) output_tokens: NonZeroU32,
}

/// What a model answered, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// How many tokens it had.
    pub(crate) tokens: Option<u64>,
    /// Whether the text is all of it.
    pub(crate) is_whole: bool,
}

// === impl Conversation ===

impl Conversation {
    /// How long the user thinks about an answer.
    pub(crate) fn rest(&self) -> Duration {
        self.entry.think
    }

    /// The next question, with all that was said before: the model's own answer among it. Where that is
    /// not known, words stand in its place, one for each token.
    pub(crate) fn after(self, answer: Answer) -> Request {
        let Self { mut ask, entry } = self;
        let later = ask.later.pop_front();
        let said = self::said(answer, &ask);
        ask.turns.push(Turn::new(Role::Assistant, said));
        if let Some(Later { text, output_tokens }) = later {
            ask.turns.push(Turn::user(text));
            ask.output_tokens = output_tokens;
        }
        ask.input_tokens = None;
        ask.request(&entry)
    }
}

fn said(answer: Answer, ask: &Ask) -> String {
    let Answer { mut text, tokens, is_whole } = answer;
    if is_whole && !text.is_empty() {
        return text;
    }
    let tokens = tokens.unwrap_or(ask.output_tokens.get().into());
    let missing = tokens.saturating_sub(text.len() as u64 / BYTES_OF_TOKEN).min(MOST_WORDS);
    Synthetic::new(ask.seed, ask.turns.len() as u64).words(missing as usize, &mut text);
    text
}

/// Words that are made up for one answer, at most.
const MOST_WORDS: u64 = 100_000;

/// The questions to come of a dialogue that somebody had: each with the length of its answer then.
pub(super) fn later_of(turns: &[Turn]) -> VecDeque<Later> {
    let mut later = VecDeque::new();
    for pair in turns.windows(2) {
        let [question, answer] = pair else { continue };
        if question.role != Role::User || answer.role != Role::Assistant {
            continue;
        }
        let tokens = (answer.text.len() as u64 / BYTES_OF_TOKEN) as u32;
        let output_tokens = NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN);
        later.push_back(Later { text: question.text.clone(), output_tokens });
    }
    later
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::workload::Mix;

    fn body(request: &Request) -> Value {
        serde_json::from_slice(&request.body).expect("a body is JSON")
    }

    fn first(entry: &str) -> Request {
        let mix = Mix::parse(&format!("- {entry}")).expect("a good mix");
        Synthetic::new(1, 0).request(&mix.entries()[0])
    }

    /// The texts of a conversation to its end, as the last request has them.
    fn to_its_end(mut request: Request) -> (usize, Value) {
        let mut calls = 1;
        while let Some(conversation) = request.then.take() {
            let text = format!("answer {calls}");
            request =
                (*conversation).clone().after(Answer { text, tokens: Some(2), is_whole: true });
            calls += 1;
        }
        (calls, body(&request))
    }

    #[test]
    fn each_question_goes_with_all_that_was_said_before() {
        let request = first("{ call: openai/chat, model: m, turns: 3, input_tokens: 20 }");
        let (calls, last) = to_its_end(request);
        let messages = last["messages"].as_array().expect("messages");
        let roles: Vec<_> = messages.iter().map(|one| one["role"].as_str().expect("one")).collect();
        assert_eq!(calls, 3);
        assert_eq!(roles, ["system", "user", "assistant", "user", "assistant", "user"]);
        assert_eq!(
            (&messages[2]["content"], &messages[4]["content"]),
            (&"answer 1".into(), &"answer 2".into())
        );
        let questions = [1, 3, 5].map(|at: usize| messages[at]["content"].as_str());
        assert!(questions[0] != questions[1] && questions[1] != questions[2]);
    }

    #[test]
    fn every_interface_that_generates_holds_conversations() {
        for entry in Mix::default().entries().iter().filter(|entry| entry.call.generates()) {
            let entry = Entry { turns: NonZeroU32::new(2).expect("two"), ..entry.clone() };
            let (calls, last) = to_its_end(Synthetic::new(1, 0).request(&entry));
            assert_eq!(calls, 2, "{}", entry.call);
            assert!(last.to_string().contains("answer 1"), "{}: {last}", entry.call);
        }
    }

    #[test]
    fn an_answer_that_is_not_known_is_as_long_as_it_was() {
        let request = first("{ call: openai/chat, model: m, turns: 2, output_tokens: 7 }");
        let then = request.then.expect("it goes on");
        let words = |answer: Answer| {
            let request = (*then).clone().after(answer);
            let said = body(&request)["messages"][2]["content"].clone();
            said.as_str().expect("a text").split(' ').count()
        };
        assert_eq!(words(Answer { tokens: Some(30), ..Answer::default() }), 30);
        assert_eq!(words(Answer::default()), 7);
        let cut = Answer { text: "the end is".to_owned(), tokens: Some(12), is_whole: false };
        assert_eq!(words(cut), 3 + 10, "ten bytes are two tokens");
    }
}
