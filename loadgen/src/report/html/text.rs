//! Text within a page: whatever it says, it is shown and nothing else.

use std::fmt;

/// A text as HTML and XML show it. What no XML may hold is left out.
pub(in crate::report) struct Escaped<'a>(pub(in crate::report) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\t' | '\n' => f.write_str(" ")?,
                '\u{fffe}' | '\u{ffff}' => {}
                _ if letter.is_control() => {}
                _ => write!(f, "{letter}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_markup() {
        let shown = Escaped("<b a='1'>&\"\u{0}\u{1b}x\n").to_string();
        assert_eq!(shown, "&lt;b a=&#39;1&#39;&gt;&amp;&quot;x ");
    }
}
