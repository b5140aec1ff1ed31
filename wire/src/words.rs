//! Words that stand in many records, shared instead of copied.

use std::cell::RefCell;
use std::sync::Arc;

/// Words beyond these are simply not shared: callers can make regions up.
const MAX_WORDS: usize = 64;
const MAX_LENGTH: usize = 64;
/// Bytes that are kept of a text which a head has made up: many records wait at a time.
const MAX_TEXT: usize = 1024;

thread_local! {
    // By thread: a counter that all workers touch on every call would cost more than the copy.
    static WORDS: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
}

/// The shared form of a word of a small vocabulary: a provider, an operation, a region.
pub(crate) fn word(text: &str) -> Arc<str> {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    WORDS.with_borrow_mut(|words| {
        if let Some(word) = words.iter().find(|word| ***word == *text) {
            return word.clone();
        }
        let word: Arc<str> = Arc::from(text);
        if words.len() < MAX_WORDS && text.len() <= MAX_LENGTH {
            words.push(word.clone());
        }
        word
    })
}

/// A text, cut off where it is longer than any that means something.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.shrink_to_fit();
    }
    text
}

/// A text that has no meaning but as a whole: nothing where it is too long to be kept.
pub(crate) fn whole(text: String) -> Option<String> {
    (text.len() <= MAX_TEXT).then_some(text)
}
