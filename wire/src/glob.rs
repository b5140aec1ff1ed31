//! Patterns as users write them: `*` stands for any characters.

/// Whether the text has this form, where `*` stands for any characters. Linear in both.
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match memchr::memmem::find(text.as_bytes(), part.as_bytes()) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, holds) in [
            ("/openai/*", "/openai/v1", true),
            ("/openai/*", "/openai", false),
            ("gpt-*", "gpt-", true),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("*.com", "a.com.org", false),
            ("aa*aa", "aaa", false),
            ("a", "a", true),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), holds, "{pattern} {text}");
        }
    }
}
