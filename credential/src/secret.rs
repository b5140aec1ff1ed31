//! A secret, which shows itself to nobody who does not ask for it by name.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A key, a token, a signature. `Debug` shows nothing; the memory is zeroed when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Whether this is it, told in a time that says no more than the length.
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// The text itself, for the one who sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_it_is_and_nothing_else() {
        let secret = Secret::new("open sesame".to_owned());
        assert!(secret.is("open sesame"));
        for other in ["", "open", "open sesamE", "open sesame "] {
            assert!(!secret.is(other), "{other:?}");
        }
    }

    #[test]
    fn a_secret_shows_nothing_in_debug() {
        let shown = format!(
            "{:?} {:#?}",
            Secret::new("canary".to_owned()),
            Secret::new("canary".to_owned())
        );
        assert!(!shown.contains("canary"), "{shown}");
    }
}
