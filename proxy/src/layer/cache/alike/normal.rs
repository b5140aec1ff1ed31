//! One form for texts that read the same.

use unicode_normalization::UnicodeNormalization;

/// The text in Unicode's form C (UAX #15), with each run of spaces within a line as one, without spaces
/// at the end of lines, without blank lines at either end, and with one in place of several. What
/// stands before the first letter of a line stays: in code it says what belongs together.
pub(super) fn normalised(text: &str) -> String {
    let text: String = text.chars().filter(|letter| !is_nothing(*letter)).nfc().collect();
    let mut lines: Vec<String> = Vec::new();
    for line in text.split('\n').map(line) {
        let follows_blank = lines.last().is_none_or(String::is_empty);
        if !(line.is_empty() && follows_blank) {
            lines.push(line);
        }
    }
    lines.join("\n").trim().to_owned()
}

/// Whether a letter shows as nothing and joins or parts nothing.
fn is_nothing(letter: char) -> bool {
    matches!(letter, '\u{200b}' | '\u{feff}' | '\u{ad}')
}

fn line(text: &str) -> String {
    let text = text.trim_end();
    let front = text.len() - text.trim_start().len();
    let (front, rest) = text.split_at(front);
    let mut line = front.to_owned();
    for word in rest.split_whitespace() {
        if line.len() > front.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_the_same_is_the_same() {
        for (one, other) in [
            ("What is  a tide?", "What is a tide?"),
            (" \n What is a tide?\r\n\n", "What is a tide?"),
            ("What is a\u{a0}tide?", "What is a tide?"),
            ("What\tis a tide?", "What is a tide?"),
            ("cafe\u{301}", "caf\u{e9}"),
            ("a\u{200b}b\u{feff}", "ab"),
            ("a \n\n\n\nb", "a\n\nb"),
            ("a\r\nb", "a\nb"),
        ] {
            assert_eq!(normalised(one), normalised(other), "{one:?}");
        }
        assert_eq!(normalised(" \n\t"), "");
    }

    #[test]
    fn what_reads_otherwise_stays_so() {
        for (one, other) in [
            ("What is a tide?", "what is a tide?"),
            ("ab", "a b"),
            ("a\nb", "a b"),
            ("a\n\nb", "a\nb"),
            ("if a:\n    b\n    c", "if a:\n    b\nc"),
            ("x\u{b2}", "x2"),
            ("1.5", "15"),
        ] {
            assert_ne!(normalised(one), normalised(other), "{one:?}");
        }
    }
}
