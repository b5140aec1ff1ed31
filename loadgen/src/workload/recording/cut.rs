//! A file, cut into the texts of its calls: lines, lines that are sealed together, or the elements of a
//! JSON array.
//!
//! It is read piece by piece; no more than one text is held, or those that are sealed together.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use tidegate_seal::{Identities, OpenError};
use tidegate_wire::capture::read_sealed;

/// The longest text of one call. A captured body of the largest size has less.
const LONGEST: usize = 64 << 20;
/// The longest line in which such a text is sealed, in base64, with what sealing adds: its header, and
/// 16 bytes for every 64 KiB.
const LONGEST_SEALED: usize = LONGEST / 3 * 4 + (1 << 20);
const BUFFER: usize = 1 << 16;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What parts the calls of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The ends of lines.
    Lines,
    /// The same, and some lines hold several that are sealed together.
    Captured,
    /// They are elements of one JSON array.
    Array,
}

/// Cuts one file.
pub(super) struct Cut {
    reader: BufReader<File>,
    layout: Layout,
    /// Where the next text is looked for.
    at: u64,
    /// The line there, counted from 1.
    line: u64,
    /// Whether the array has been opened.
    is_open: bool,
    text: Vec<u8>,
    identities: Arc<Identities>,
    /// What was sealed in the last line that was opened.
    opened: Opened,
}

/// Where the text of a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) length: usize,
    /// Counted from 1.
    pub(super) line: u64,
    /// Where it begins in what is sealed there; absent where nothing is.
    pub(super) within: Option<usize>,
}

/// Lines that were sealed together.
#[derive(Default)]
struct Opened {
    /// Where the line stands that they were sealed in; absent where none was opened yet.
    place: Option<Place>,
    lines: Vec<u8>,
    /// Where the next of them is looked for.
    at: usize,
}

/// Why a file cannot be cut.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be read.
    Read(io::Error),
    /// What stands at this line cannot be one of its texts.
    Text { line: u64, message: String },
}

// === impl Cut ===

impl Cut {
    pub(super) fn open(path: &Path, layout: Layout) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER, File::open(path)?);
        let has_mark = reader.fill_buf()?.starts_with(BYTE_ORDER_MARK);
        let mark = if has_mark { BYTE_ORDER_MARK.len() } else { 0 };
        reader.consume(mark);
        Ok(Self {
            reader,
            layout,
            at: mark as u64,
            line: 1,
            is_open: false,
            text: Vec::new(),
            identities: Arc::default(),
            opened: Opened::default(),
        })
    }

    /// The same, which opens what was sealed for one of these.
    pub(super) fn opening(self, identities: Arc<Identities>) -> Self {
        Self { identities, ..self }
    }

    /// The next text, without what parts it from the others, and where it stands.
    pub(super) fn next(&mut self) -> Result<Option<(Place, &[u8])>, Fault> {
        self.text.clear();
        let place = match self.layout {
            Layout::Lines => self.next_line()?,
            Layout::Captured => self.next_captured()?,
            Layout::Array => self.next_element()?,
        };
        Ok(place.map(|place| (place, &*self.text)))
    }

    /// A text that was found before.
    pub(super) fn again(&mut self, place: Place) -> Result<&[u8], Fault> {
        if let Some(within) = place.within {
            return self.opened_again(place, within);
        }
        self.reader.seek(SeekFrom::Start(place.start))?;
        self.text.resize(place.length, 0);
        self.reader.read_exact(&mut self.text)?;
        Ok(&self.text)
    }

    fn opened_again(&mut self, place: Place, within: usize) -> Result<&[u8], Fault> {
        if self.opened.place.is_none_or(|opened| opened.start != place.start) {
            self.reader.seek(SeekFrom::Start(place.start))?;
            (self.at, self.line) = (place.start, place.line);
            self.text.clear();
            match self.next_line()? {
                Some(place) if self.open_sealed(place)? => {}
                _ => return Err(changed(place.line)),
            }
        }
        let lines = &self.opened.lines;
        lines.get(within..within + place.length).ok_or_else(|| changed(place.line))
    }

    /// The next line, or the next of those that are sealed in one.
    fn next_captured(&mut self) -> Result<Option<Place>, Fault> {
        loop {
            if let Some(place) = self.opened.next_line(&mut self.text) {
                return Ok(Some(place));
            }
            self.text.clear();
            match self.next_line()? {
                Some(place) if self.open_sealed(place)? => {}
                place => return Ok(place),
            }
        }
    }

    /// Opens the line that has just been read, if it is sealed. What is damaged is left to who reads it.
    fn open_sealed(&mut self, place: Place) -> Result<bool, Fault> {
        let Ok(Some(message)) = read_sealed(&self.text) else { return Ok(false) };
        let opened = self.identities.open(&message);
        let lines = opened.map_err(|error| Fault::Text {
            line: place.line,
            message: match error {
                OpenError::NoIdentity => {
                    "its calls are encrypted; name the identity that opens them: --identity FILE"
                        .to_owned()
                }
                error => error.to_string(),
            },
        })?;
        self.opened = Opened { place: Some(place), lines, at: 0 };
        Ok(true)
    }

    fn next_line(&mut self) -> Result<Option<Place>, Fault> {
        let (start, line) = (self.at, self.line);
        let longest = match self.layout {
            Layout::Captured => LONGEST_SEALED,
            Layout::Lines | Layout::Array => LONGEST,
        };
        let mut limited = self.reader.by_ref().take(longest as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.text)?;
        if read == 0 {
            return Ok(None);
        }
        let has_end = self.text.ends_with(b"\n");
        if !has_end && read > longest {
            return Err(too_long(line, longest));
        }
        self.at += read as u64;
        self.line += 1;
        while self.text.ends_with(b"\n") || self.text.ends_with(b"\r") {
            self.text.pop();
        }
        Ok(Some(Place { start, length: self.text.len(), line, within: None }))
    }

    fn next_element(&mut self) -> Result<Option<Place>, Fault> {
        loop {
            let Some(byte) = self.byte()? else { return self.end_of_array() };
            match byte {
                b'{' => break,
                b'[' if !self.is_open => self.is_open = true,
                b']' if self.is_open => return self.nothing_follows(),
                b',' if self.is_open => {}
                _ if byte.is_ascii_whitespace() => {}
                _ => return Err(self.unexpected(byte)),
            }
        }
        let (start, line) = (self.at - 1, self.line);
        self.text.push(b'{');
        self.rest_of_object(line)?;
        Ok(Some(Place { start, length: self.text.len(), line, within: None }))
    }

    /// What follows the opening brace, up to the one that closes it.
    fn rest_of_object(&mut self, line: u64) -> Result<(), Fault> {
        let (mut depth, mut in_string, mut is_escaped) = (1, false, false);
        while depth > 0 {
            let byte = self.byte()?.ok_or_else(|| cut_off(line))?;
            if self.text.len() == LONGEST {
                return Err(too_long(line, LONGEST));
            }
            self.text.push(byte);
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_string => is_escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let Some(&byte) = self.reader.fill_buf()?.first() else { return Ok(None) };
        self.reader.consume(1);
        self.at += 1;
        self.line += u64::from(byte == b'\n');
        Ok(Some(byte))
    }

    fn end_of_array(&self) -> Result<Option<Place>, Fault> {
        match self.is_open {
            true => Err(cut_off(self.line)),
            false => Ok(None),
        }
    }

    fn nothing_follows(&mut self) -> Result<Option<Place>, Fault> {
        while let Some(byte) = self.byte()? {
            if !byte.is_ascii_whitespace() {
                return Err(self.unexpected(byte));
            }
        }
        self.is_open = false;
        Ok(None)
    }

    fn unexpected(&self, byte: u8) -> Fault {
        let message = format!("`{}` where an object was expected", byte.escape_ascii());
        Fault::Text { line: self.line, message }
    }
}

// === impl Opened ===

impl Opened {
    /// The next line, which goes to `text`, and where it stands.
    fn next_line(&mut self, text: &mut Vec<u8>) -> Option<Place> {
        let (at, rest) = (self.at, self.lines.get(self.at..)?);
        let line = rest.split(|byte| *byte == b'\n').next().filter(|_| !rest.is_empty())?;
        self.at += line.len() + 1;
        text.clear();
        text.extend_from_slice(line);
        Some(Place { length: line.len(), within: Some(at), ..self.place? })
    }
}

fn changed(line: u64) -> Fault {
    Fault::Text { line, message: "this has changed since it was read first".to_owned() }
}

fn too_long(line: u64, longest: usize) -> Fault {
    let message = format!("this is longer than {} MiB", longest >> 20);
    Fault::Text { line, message }
}

fn cut_off(line: u64) -> Fault {
    Fault::Text { line, message: "the file ends in the middle of this".to_owned() }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::recording::tests::{IDENTITY, file, sealed};

    fn cut(text: &str, layout: Layout) -> Result<Vec<(String, u64)>, String> {
        let path = file("cut", text);
        let mut cut = Cut::open(&path, layout).expect("it is there");
        let mut again = Cut::open(&path, layout).expect("it is there");
        let mut texts = Vec::new();
        loop {
            match cut.next() {
                Ok(None) => break,
                Ok(Some((place, text))) => {
                    assert_eq!(again.again(place).expect("it is there still"), text);
                    texts.push((String::from_utf8_lossy(text).into_owned(), place.line));
                }
                Err(Fault::Text { line, message }) => return Err(format!("{line}: {message}")),
                Err(Fault::Read(error)) => panic!("{error}"),
            }
        }
        std::fs::remove_file(&path).expect("it was written");
        Ok(texts)
    }

    fn owned(texts: &[(&str, u64)]) -> Result<Vec<(String, u64)>, String> {
        Ok(texts.iter().map(|(text, line)| ((*text).to_owned(), *line)).collect())
    }

    #[test]
    fn lines_end_in_any_way_or_not_at_all() {
        let read = cut("\u{feff}a\r\nb\n\nlast", Layout::Lines);
        assert_eq!(read, owned(&[("a", 1), ("b", 2), ("", 3), ("last", 4)]));
        assert_eq!(cut("", Layout::Lines), Ok(vec![]));
    }

    #[test]
    fn what_was_sealed_and_is_no_more_is_told_and_not_read_elsewhere() {
        let first = sealed(b"one\n");
        let text = [&first[..], &sealed(b"two\n")].concat();
        let path = file("cut", &text);
        let key = file("key", IDENTITY);
        let identities = Arc::new(Identities::read(&[&key]).expect("one"));
        let cut = || Cut::open(&path, Layout::Captured).expect("it is there");
        let mut known = cut().opening(identities.clone());
        let mut next = || known.next().expect("it opens").expect("there is one").0;
        let places = [next(), next()];
        let in_the_clear = [&vec![b'x'; first.len() - 1][..], b"\n"].concat();
        for changed in [in_the_clear, Vec::new()] {
            std::fs::write(&path, &text).expect("it writes");
            let mut again = cut().opening(identities.clone());
            assert_eq!(again.again(places[1]).expect("it is there"), b"two");
            std::fs::write(&path, changed).expect("it writes");
            let told = again.again(places[0]);
            assert!(matches!(told, Err(Fault::Text { line: 1, .. })), "{told:?}");
        }
        [path, key].iter().for_each(|path| std::fs::remove_file(path).expect("it was written"));
    }

    #[test]
    fn a_text_of_the_greatest_length_has_room_sealed_too() {
        use tidegate_wire::capture::write_sealed;
        // What age adds to it: a header for sixteen, and a tag for each piece.
        let message = vec![0; LONGEST + 16 * (LONGEST / (64 << 10)) + (16 << 10)];
        let mut line = Vec::new();
        write_sealed(&message, &mut line);
        let path = file("long", &line);
        let length = |layout| match Cut::open(&path, layout).expect("it is there").next() {
            Ok(text) => text.map(|(place, _)| place.length).ok_or_else(String::new),
            Err(Fault::Text { message, .. }) => Err(message),
            Err(Fault::Read(error)) => panic!("{error}"),
        };
        assert_eq!(length(Layout::Lines), Err("this is longer than 64 MiB".to_owned()));
        let error = length(Layout::Captured).expect_err("nobody opens it");
        assert!(error.contains("its calls are encrypted"), "{error}");
        std::fs::remove_file(path).expect("it was written");
    }

    #[test]
    fn an_array_is_cut_where_its_elements_end() {
        let read = cut("[{\"a\":\"}]\\\"{\"},\n {\"b\":[{}]}\n]\n", Layout::Array);
        assert_eq!(read, owned(&[(r#"{"a":"}]\"{"}"#, 1), (r#"{"b":[{}]}"#, 2)]));
        assert_eq!(cut("[]", Layout::Array), Ok(vec![]));
    }

    #[test]
    fn an_array_that_is_none_is_told_with_its_line() {
        for (text, message) in [
            ("[\n{\"a\":1}", "2: the file ends in the middle of this"),
            ("[{\"a\":\n", "1: the file ends in the middle of this"),
            ("[\n1]", "2: `1` where an object was expected"),
            ("[]\n x", "2: `x` where an object was expected"),
        ] {
            assert_eq!(cut(text, Layout::Array), Err(message.to_owned()), "{text}");
        }
    }
}
