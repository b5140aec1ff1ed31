//! What a caller says of the caches on its way: `cache-control` of RFC 9111, 5.2.1.

use std::time::Duration;

use crate::head::Fields;

/// What a caller wants of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The answer is to be the upstream's own, and may be kept.
    pub(crate) no_cache: bool,
    /// Nothing of the call is to be kept.
    pub(crate) no_store: bool,
    /// No upstream is to be asked.
    pub(crate) only_if_cached: bool,
    /// How old an answer may be.
    pub(crate) max_age: Option<Duration>,
}

impl Wish {
    /// Reads what these fields say.
    pub(crate) fn of(fields: &Fields) -> Self {
        let mut wish = Self::default();
        let mut is_said = false;
        let mut pragma = false;
        for (name, value) in fields.iter() {
            if name.eq_ignore_ascii_case(b"cache-control") {
                is_said = true;
                value.split(|byte| *byte == b',').for_each(|part| wish.add(part.trim_ascii()));
            } else if name.eq_ignore_ascii_case(b"pragma") {
                pragma |= value.trim_ascii().eq_ignore_ascii_case(b"no-cache");
            }
        }
        // What HTTP/1.0 knew counts only where nothing else is said.
        wish.no_cache |= pragma && !is_said;
        wish
    }

    fn add(&mut self, directive: &[u8]) {
        let mut parts = directive.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        match name.as_slice() {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => {
                let seconds = seconds(parts.next().unwrap_or_default());
                self.max_age = Some(self.max_age.map_or(seconds, |age| age.min(seconds)));
            }
            _ => {}
        }
    }

    /// Whether an answer may be as old as this.
    pub(crate) fn takes(&self, age: Duration) -> bool {
        !self.no_cache && self.max_age.is_none_or(|most| age <= most)
    }
}

/// What is no number of seconds is none at all: rather too fresh than too old.
fn seconds(text: &[u8]) -> Duration {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| is_number);
    // More than fits is more than anybody waits.
    number.map_or(Duration::ZERO, |text| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_says_is_read_in_all_the_ways_that_it_is_said() {
        let none = Wish::default();
        let age = |seconds| Wish { max_age: Some(Duration::from_secs(seconds)), ..none };
        for (name, value, wish) in [
            ("cache-control", "no-cache", Wish { no_cache: true, ..none }),
            ("Cache-Control", " No-Store ,foo=\"a,b\"", Wish { no_store: true, ..none }),
            ("cache-control", "only-if-cached, max-age=5", Wish { only_if_cached: true, ..age(5) }),
            ("cache-control", "max-age = \"60\"", age(60)),
            ("cache-control", "max-age=60, max-age=5", age(5)),
            ("cache-control", "max-age=99999999999999999999", age(u64::MAX)),
            ("cache-control", "max-age=-1", age(0)),
            ("cache-control", "max-age", age(0)),
            ("cache-control", "no-cache-please, max-stale=5", none),
            ("cache-control", "", none),
            ("pragma", "no-cache", Wish { no_cache: true, ..none }),
            ("x-cache-control", "no-cache", none),
        ] {
            let fields = Fields::of(&[(name.as_bytes(), value.as_bytes())]);
            assert_eq!(Wish::of(&fields), wish, "{name}: {value}");
        }
        let both: [(&[u8], &[u8]); 2] =
            [(b"pragma", b"no-cache"), (b"cache-control", b"max-age=9")];
        assert_eq!(Wish::of(&Fields::of(&both)), age(9));
    }

    #[test]
    fn an_answer_is_taken_up_to_the_age_that_was_said() {
        let second = Duration::from_secs(1);
        assert!(Wish::default().takes(Duration::MAX));
        let wish = Wish { max_age: Some(second), ..Wish::default() };
        assert!(wish.takes(second) && !wish.takes(second + Duration::from_nanos(1)));
        assert!(!Wish { no_cache: true, ..Wish::default() }.takes(Duration::ZERO));
    }
}
