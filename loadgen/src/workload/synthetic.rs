//! Requests made up from a seed, in every dialect.
//!
//! Prompts are made of common words and differ in length as prompts do: most near the median, a
//! few many times as long. One seed gives one sequence of requests.

use std::f64::consts::TAU;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::conversation::Later;
use super::picture::picture;
use super::written::{Ask, Role, Turn};
use super::{Entry, Operation, Request};

/// Of a thousand streams in the OpenAI dialect, those that ask for usage.
const USAGE_ASKED_PER_MILLE: u32 = 750;

/// From what the words are drawn that calls share: the same in every run, as the prompts of an
/// application are.
const SHARED: u64 = 0x7469_6465;

/// A seeded source of requests. Each user, or each call of an open loop, has its own.
pub struct Synthetic {
    random: SmallRng,
}

impl Synthetic {
    /// The source number `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        // The golden ratio spreads neighbouring numbers over all bits.
        let mixed = seed ^ stream.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self { random: SmallRng::seed_from_u64(mixed) }
    }

    /// A place between 0 and 1, for [`Mix::at`](super::Mix::at).
    pub fn place(&mut self) -> f64 {
        self.random.random()
    }

    /// The next request of this kind.
    pub fn request(&mut self, entry: &Entry) -> Request {
        let median = f64::from(entry.input_tokens.get());
        let mut question = Turn::user(self.prompt(median));
        for _ in 0..entry.images {
            question.pictures.push(picture(entry.image_size.get(), self.random.random()));
        }
        let turns = system(entry).into_iter().chain([question]).collect();
        let states_usage = self.random.random_ratio(USAGE_ASKED_PER_MILLE, 1000);
        let output_tokens = entry.output_tokens;
        let later = (1..entry.turns.get())
            .map(|_| Later { text: self.prompt(median), output_tokens })
            .collect();
        let seed = if entry.turns.get() > 1 { self.random.random() } else { 0 };
        Ask { turns, input_tokens: None, output_tokens, states_usage, later, seed }.request(entry)
    }

    /// Words worth about as many tokens as a draw around the median says.
    fn prompt(&mut self, median_tokens: f64) -> String {
        let tokens =
            (median_tokens * (0.6 * self.normal()).exp()).clamp(1.0, 20.0 * median_tokens) as usize;
        let mut prompt = String::with_capacity(tokens * 6);
        self.words(tokens, &mut prompt);
        prompt
    }

    /// Appends so many words, each about one token, with a space before all but the first of a text.
    pub(crate) fn words(&mut self, count: usize, text: &mut String) {
        for _ in 0..count {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(WORDS[self.random.random_range(0..WORDS.len())]);
        }
    }

    /// A draw from the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.random.random::<f64>()).ln()).sqrt();
        radius * (TAU * self.random.random::<f64>()).cos()
    }
}

/// What stands before every question of an entry.
fn system(entry: &Entry) -> Option<Turn> {
    let is_chat = matches!(entry.call, Operation::OpenAiChat | Operation::VertexOpenAiChat);
    if entry.shared_tokens == 0 {
        return is_chat.then(|| Turn::new(Role::System, "You answer briefly."));
    }
    let mut text = String::with_capacity(entry.shared_tokens as usize * 6);
    Synthetic::new(SHARED, 0).words(entry.shared_tokens as usize, &mut text);
    Some(Turn::new(Role::System, text))
}

/// Common words of about one token each, plain enough to need no escape in JSON.
const WORDS: [&str; 96] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "on", "are", "as", "with",
    "they", "at", "be", "this", "have", "from", "or", "one", "had", "by", "word", "but", "not",
    "what", "all", "were", "we", "when", "your", "can", "said", "there", "use", "an", "each",
    "which", "she", "do", "how", "their", "if", "will", "up", "other", "about", "out", "many",
    "then", "them", "these", "so", "some", "her", "would", "make", "like", "him", "into", "time",
    "has", "look", "two", "more", "write", "go", "see", "number", "no", "way", "could", "people",
    "my", "than", "first", "water", "been", "call", "who", "oil", "its", "now", "find", "long",
    "down", "day", "did", "get", "come", "made", "may", "part", "tide",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Mix;

    #[test]
    fn one_seed_gives_one_sequence() {
        let mix = Mix::default();
        let bodies = |seed| {
            let mut source = Synthetic::new(seed, 7);
            mix.entries().iter().map(|entry| source.request(entry).body).collect::<Vec<_>>()
        };
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn every_path_of_the_default_mix_reads_as_the_dialect_that_was_meant() {
        let mut source = Synthetic::new(1, 0);
        for entry in Mix::default().entries() {
            let request = source.request(entry);
            let shape = crate::client::shape(&request, None);
            assert_eq!(shape.dialect, request.dialect, "{}", request.path);
            if let Some(stream) = shape.stream {
                assert_eq!(stream, request.stream, "{}", request.path);
            }
            if let Some(model) = shape.model {
                assert_eq!(*model, *entry.model, "{}", request.path);
            }
        }
    }

    #[test]
    fn what_a_request_asks_is_told_by_its_path() {
        let mut source = Synthetic::new(1, 0);
        for entry in Mix::default().entries() {
            let found = Operation::of(&source.request(entry));
            let expected = match entry.call {
                Operation::GenerateInstances => Operation::GeneratePrompt,
                call => call,
            };
            assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn prompts_vary_around_the_median() {
        let mut source = Synthetic::new(1, 0);
        let mut lengths: Vec<_> =
            (0..999).map(|_| source.prompt(200.0).split(' ').count()).collect();
        lengths.sort_unstable();
        assert!((180..220).contains(&lengths[499]), "median {}", lengths[499]);
        assert!(lengths[0] < 80 && lengths[998] > 600, "{} to {}", lengths[0], lengths[998]);
    }
}
