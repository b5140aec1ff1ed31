//! Closes JSON that was cut off, so that what came of it can be read.

/// What came of a JSON text, with all that is open closed. A value that was cut off is left out,
/// but for a string, which ends where it was cut.
pub(super) fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut cut = Cut::default();
    for (at, byte) in bytes.iter().enumerate() {
        cut.step(at, *byte);
    }
    cut.close(bytes)
}

/// Where a text stands.
#[derive(Default)]
struct Cut {
    /// The brackets that are open, each by what closes it.
    open: Vec<u8>,
    string: Option<StringAt>,
    /// The string at hand, or the next one, is a key.
    is_key: bool,
    /// Up to here the text is whole but for its open brackets.
    whole: usize,
}

#[derive(Clone, Copy)]
struct StringAt {
    /// Its characters are whole up to here.
    whole: usize,
    /// Digits of an escape that are to come, or [`BEGUN`].
    escape: u8,
}

/// What is escaped has not been said yet.
const BEGUN: u8 = u8::MAX;

impl Cut {
    fn step(&mut self, at: usize, byte: u8) {
        if let Some(string) = &mut self.string {
            if byte == b'"' && string.escape == 0 {
                self.string = None;
                if !self.is_key {
                    self.whole = at + 1;
                }
                return;
            }
            string.step(at, byte);
            return;
        }
        match byte {
            b'"' => self.string = Some(StringAt { whole: at + 1, escape: 0 }),
            b'{' | b'[' => {
                self.open.push(if byte == b'{' { b'}' } else { b']' });
                self.is_key = byte == b'{';
                self.whole = at + 1;
            }
            b'}' | b']' => {
                self.open.pop();
                self.is_key = false;
                self.whole = at + 1;
            }
            b',' => {
                self.is_key = self.open.last() == Some(&b'}');
                self.whole = at;
            }
            b':' => self.is_key = false,
            _ => {}
        }
    }

    fn close(mut self, bytes: &[u8]) -> Vec<u8> {
        let mut mended = match self.string {
            Some(string) if !self.is_key => {
                let text = &bytes[..string.whole];
                let mut text = text[..text.len() - unfinished(text)].to_vec();
                text.push(b'"');
                text
            }
            _ => bytes[..self.whole].to_vec(),
        };
        while let Some(bracket) = self.open.pop() {
            mended.push(bracket);
        }
        mended
    }
}

impl StringAt {
    fn step(&mut self, at: usize, byte: u8) {
        self.escape = match (self.escape, byte) {
            (BEGUN, b'u') => 4,
            (BEGUN, _) => 0,
            (0, b'\\') => BEGUN,
            (0, _) => 0,
            (digits, _) => digits - 1,
        };
        if self.escape == 0 {
            self.whole = at + 1;
        }
    }
}

/// Bytes at the end of a text that begin a character without ending it.
fn unfinished(text: &[u8]) -> usize {
    let begins = |byte: &u8| byte & 0xc0 != 0x80;
    let Some(back) = text.iter().rev().take(4).position(begins) else { return 0 };
    let last = &text[text.len() - back - 1..];
    if std::str::from_utf8(last).is_ok() { 0 } else { last.len() }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const TEXT: &str = r#"{"a": [1, {"b\"": "x\u00e9\n üß😀"}, true], "c": {"d": null, "e": "f"}}"#;

    #[test]
    fn a_text_cut_anywhere_can_be_read() {
        for end in 1..TEXT.len() {
            let mended = mend(&TEXT.as_bytes()[..end]);
            let read = serde_json::from_slice::<Value>(&mended);
            let shown = String::from_utf8_lossy(&mended).into_owned();
            assert!(read.is_ok_and(|value| value.is_object()), "{end}: {shown}");
        }
    }

    #[test]
    fn a_string_ends_where_it_was_cut() {
        assert_eq!(mend(br#"[{"text": "Why is t"#), br#"[{"text": "Why is t"}]"#);
        assert_eq!(mend(br#"[{"text": "Why\u00"#), br#"[{"text": "Why"}]"#);
        assert_eq!(mend(br#"{"a": 1, "tex"#), br#"{"a": 1}"#);
        assert_eq!(mend(br#"{"a": 12"#), b"{}");
    }
}
