//! The canonical form of a JSON document: without whitespace, the keys of each object in order.
//!
//! It is JSON itself, so no text within a string can pass for structure. Numbers and strings stay
//! as they are written: `1`, `1.0` and `1e0` are different documents here, for a server may take
//! them so. What could be read in two ways has no canonical form.

use std::borrow::Cow;
use std::ops::Range;

/// Arrays and objects within each other; more is nobody's prompt.
const MAX_DEPTH: usize = 64;
/// Keys of one object, and of those that it stands in.
const MAX_KEYS: usize = 16_384;

/// A document in canonical form.
#[derive(Debug)]
pub(crate) struct Document {
    text: Vec<u8>,
    /// The members of the outermost object, in their order.
    members: Vec<Member>,
}

/// Why a text has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// It is no JSON object.
    NotJson,
    /// An object has a key twice, and servers differ in which they take.
    DuplicateKey,
    /// It is too deep, or has too many keys.
    TooComplex,
}

/// A member of an object, by its places in the text.
#[derive(Debug)]
struct Member {
    /// From its key to the end of its value.
    at: Range<usize>,
    /// Where its value begins.
    value: usize,
    /// Its key as it is meant, where it is written with escapes.
    decoded: Option<String>,
}

/// Reads a document and writes its canonical form as it goes.
struct Writer<'a> {
    rest: &'a [u8],
    text: Vec<u8>,
    /// The members of all objects that are open, the innermost last.
    members: Vec<Member>,
    depth: usize,
    /// Lent to whoever puts members in order.
    spare: Vec<u8>,
}

// === impl Document ===

impl Document {
    /// Reads an object.
    pub(crate) fn read(json: &[u8]) -> Result<Self, Unclear> {
        if std::str::from_utf8(json).is_err() {
            return Err(Unclear::NotJson);
        }
        let text = Vec::with_capacity(json.len());
        let mut writer =
            Writer { rest: json, text, members: Vec::new(), depth: 0, spare: Vec::new() };
        writer.skip_whitespace();
        if writer.rest.first() != Some(&b'{') {
            return Err(Unclear::NotJson);
        }
        writer.value()?;
        writer.skip_whitespace();
        if !writer.rest.is_empty() {
            return Err(Unclear::NotJson);
        }
        Ok(Self { text: writer.text, members: writer.members })
    }

    /// The canonical form.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The value of a member of the outermost object, in its canonical form.
    pub(crate) fn member(&self, key: &str) -> Option<&[u8]> {
        let found = self
            .members
            .binary_search_by(|member| member.key(&self.text).as_ref().cmp(key.as_bytes()));
        found.ok().map(|at| &self.text[self.members[at].value..self.members[at].at.end])
    }
}

// === impl Member ===

impl Member {
    /// The key as it is meant.
    fn key<'a>(&'a self, text: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.decoded {
            Some(key) => Cow::Borrowed(key.as_bytes()),
            // Between the quotes, which a colon follows.
            None => Cow::Borrowed(&text[self.at.start + 1..self.value - 2]),
        }
    }
}

// === impl Writer ===

impl Writer<'_> {
    fn value(&mut self) -> Result<(), Unclear> {
        match self.rest.first() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<(), Unclear>) -> Result<(), Unclear> {
        if self.depth == MAX_DEPTH {
            return Err(Unclear::TooComplex);
        }
        self.depth += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), Unclear> {
        self.take(1);
        self.skip_whitespace();
        if self.takes(b']') {
            return Ok(());
        }
        loop {
            self.value()?;
            self.skip_whitespace();
            if self.takes(b']') {
                return Ok(());
            }
            self.expect(b',')?;
            self.skip_whitespace();
        }
    }

    fn object(&mut self) -> Result<(), Unclear> {
        let (start, first) = (self.text.len(), self.members.len());
        self.take(1);
        self.skip_whitespace();
        if !self.takes(b'}') {
            loop {
                self.member()?;
                self.skip_whitespace();
                if self.takes(b'}') {
                    break;
                }
                self.expect(b',')?;
                self.skip_whitespace();
            }
        }
        self.order(start, first)?;
        if self.depth > 1 {
            self.members.truncate(first);
        }
        Ok(())
    }

    fn member(&mut self) -> Result<(), Unclear> {
        if self.members.len() == MAX_KEYS {
            return Err(Unclear::TooComplex);
        }
        let start = self.text.len();
        if self.rest.first() != Some(&b'"') {
            return Err(Unclear::NotJson);
        }
        self.string()?;
        let key = &self.text[start..];
        let decoded = memchr::memchr(b'\\', key).map(|_| serde_json::from_slice(key));
        let decoded = decoded.transpose().map_err(|_| Unclear::NotJson)?;
        self.skip_whitespace();
        self.expect(b':')?;
        let value = self.text.len();
        self.skip_whitespace();
        self.value()?;
        self.members.push(Member { at: start..self.text.len(), value, decoded });
        Ok(())
    }

    /// Puts the members of the object that began here in order.
    fn order(&mut self, start: usize, first: usize) -> Result<(), Unclear> {
        let (text, members) = (&mut self.text, &mut self.members[first..]);
        if !members.is_sorted_by(|one, next| one.key(text) < next.key(text)) {
            members.sort_by(|one, other| one.key(text).cmp(&other.key(text)));
            if members.windows(2).any(|pair| pair[0].key(text) == pair[1].key(text)) {
                return Err(Unclear::DuplicateKey);
            }
            self.spare.clear();
            for member in members {
                let at = start + 1 + self.spare.len();
                self.spare.extend_from_slice(&text[member.at.clone()]);
                self.spare.push(b',');
                member.value = at + (member.value - member.at.start);
                member.at = at..at + member.at.len();
            }
            // In place of the last comma stands the brace.
            let end = text.len() - 1;
            text[start + 1..end].copy_from_slice(&self.spare[..self.spare.len() - 1]);
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Unclear> {
        let mut end = 1;
        loop {
            let found = memchr::memchr2(b'"', b'\\', &self.rest[end..]);
            let run = &self.rest[end..][..found.ok_or(Unclear::NotJson)?];
            if run.iter().any(|byte| *byte < 0x20) {
                return Err(Unclear::NotJson);
            }
            end += run.len();
            if self.rest[end] == b'"' {
                self.take(end + 1);
                return Ok(());
            }
            end += escape(&self.rest[end..]).ok_or(Unclear::NotJson)?;
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Unclear> {
        if !self.rest.starts_with(word) {
            return Err(Unclear::NotJson);
        }
        self.take(word.len());
        Ok(())
    }

    fn number(&mut self) -> Result<(), Unclear> {
        let length = number(self.rest).ok_or(Unclear::NotJson)?;
        self.take(length);
        Ok(())
    }

    fn skip_whitespace(&mut self) {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let blanks = self.rest.iter().take_while(|byte| is_blank(byte)).count();
        self.rest = &self.rest[blanks..];
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unclear> {
        if self.takes(byte) { Ok(()) } else { Err(Unclear::NotJson) }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        if is_next {
            self.take(1);
        }
        is_next
    }

    /// So many bytes go on as they are.
    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.text.extend_from_slice(taken);
        self.rest = rest;
    }
}

/// The length of the escape at the front.
fn escape(text: &[u8]) -> Option<usize> {
    match text.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' if text.get(2..6)?.iter().all(u8::is_ascii_hexdigit) => Some(6),
        _ => None,
    }
}

/// The length of the number at the front.
fn number(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let some_digits = |from: usize| Some(digits(from)).filter(|count| *count > 0);
    let mut end = usize::from(text.first() == Some(&b'-'));
    end += match text.get(end)? {
        b'0' => 1,
        _ => some_digits(end)?,
    };
    if text.get(end) == Some(&b'.') {
        end += 1 + some_digits(end + 1)?;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let has_sign = matches!(text.get(end + 1), Some(b'+' | b'-'));
        end += 1 + usize::from(has_sign);
        end += some_digits(end)?;
    }
    Some(end)
}

#[cfg(test)]
mod tests;
