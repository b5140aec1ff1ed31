//! The image, recording, video or document at hand: its kind, and how many bytes it has.
//!
//! Nothing is collected. Base64 is counted, not decoded, but for the beginning of a picture whose
//! size is asked for. Keys come in any order, so a piece is counted when its object closes.

use super::picture::{Picture, Size};
use crate::Media;

/// What a piece may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Audio,
    Video,
    Document,
}

/// The piece at hand.
#[derive(Debug, Default)]
pub(super) struct Piece {
    kind: Option<Kind>,
    /// The content is text as it stands, no base64.
    is_text: bool,
    form: Form,
    /// Bytes of the content as they stand, once unescaped.
    length: u64,
    base64: Base64,
    picture: Option<Box<Picture>>,
}

/// How a content is written, as far as its beginning has told.
#[derive(Debug, Default)]
enum Form {
    /// Nothing has come.
    #[default]
    Empty,
    /// Too little to tell.
    Unknown(Start),
    Base64,
    /// Within `data:image/png;base64`.
    DataUrl(UrlHead),
    /// A link, or something else that has no content here.
    Elsewhere,
}

/// The first bytes of a text.
#[derive(Debug, Default)]
struct Start {
    bytes: [u8; Start::LENGTH],
    length: usize,
    /// What is no URL is base64.
    may_be_bare: bool,
}

/// What stands before the comma of a data URL.
#[derive(Debug, Default)]
struct UrlHead {
    /// Its last bytes.
    tail: [u8; UrlHead::BASE64.len()],
    length: usize,
}

/// The length of what base64 stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Base64 {
    digits: u64,
    /// The `=` at its end.
    padding: u64,
}

// === impl Kind ===

impl Kind {
    /// The words by which the parts of messages tell what they are.
    pub(super) fn of_part(word: &[u8]) -> Option<Self> {
        match word {
            b"image" | b"image_url" | b"input_image" => Some(Self::Image),
            b"audio" | b"audio_url" | b"input_audio" => Some(Self::Audio),
            b"video" | b"video_url" | b"input_video" => Some(Self::Video),
            b"document" | b"document_url" | b"file" | b"input_file" => Some(Self::Document),
            _ => None,
        }
    }

    pub(super) fn of_mime(kind: &[u8]) -> Self {
        let is = |class: &[u8]| {
            kind.get(..class.len()).is_some_and(|start| start.eq_ignore_ascii_case(class))
        };
        match () {
            () if is(b"image/") => Self::Image,
            () if is(b"audio/") => Self::Audio,
            () if is(b"video/") => Self::Video,
            () => Self::Document,
        }
    }
}

// === impl Piece ===

impl Piece {
    pub(super) fn is(&mut self, kind: Kind) {
        self.kind = Some(kind);
    }

    /// The content is plain text.
    pub(super) fn is_text(&mut self) {
        self.is_text = true;
    }

    /// Looks for the size of the picture that comes.
    pub(super) fn watch(&mut self) {
        self.picture.get_or_insert_default();
    }

    /// More of the content, which is base64 or plain text.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        self.form = Form::Base64;
        self.digits(bytes);
    }

    /// More of a text that holds the content or says where it is. One that is no URL at all is
    /// base64 where that `may_be_bare`.
    pub(super) fn text(&mut self, mut bytes: &[u8], may_be_bare: bool) {
        loop {
            match &mut self.form {
                Form::Empty => {
                    self.form = Form::Unknown(Start { may_be_bare, ..Start::default() });
                }
                Form::Unknown(start) => {
                    bytes = start.take(bytes);
                    if start.length < Start::LENGTH {
                        return;
                    }
                    self.begin();
                }
                Form::DataUrl(head) => match head.take(bytes) {
                    Some((form, rest)) => (self.form, bytes) = (form, rest),
                    None => return,
                },
                Form::Base64 => return self.digits(bytes),
                Form::Elsewhere => return,
            }
        }
    }

    /// Enough has come to tell what this is.
    fn begin(&mut self) {
        const DATA: &[u8] = b"data:";
        let Form::Unknown(Start { bytes, length, may_be_bare }) = self.form else { return };
        let bytes = &bytes[..length];
        if bytes.get(..DATA.len()).is_some_and(|word| word.eq_ignore_ascii_case(DATA)) {
            self.form = Form::DataUrl(UrlHead::default());
            self.text(&bytes[DATA.len()..], may_be_bare);
        } else if may_be_bare && !bytes.contains(&b':') {
            self.form = Form::Base64;
            self.digits(bytes);
        } else {
            self.form = Form::Elsewhere;
        }
    }

    fn digits(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.base64.count(bytes);
        if let Some(picture) = &mut self.picture {
            picture.read(bytes);
        }
    }

    /// The piece is whole: counts it, if anything said what it is. The size of a picture that was
    /// watched, if it said it.
    pub(super) fn end(&mut self, media: &mut Option<Box<Media>>) -> Option<Size> {
        self.begin();
        let piece = std::mem::take(self);
        let bytes = match piece.form {
            Form::Base64 if piece.is_text => Some(piece.length),
            Form::Base64 => Some(piece.base64.decoded()),
            _ => None,
        };
        let kind = piece.kind?;
        count(media.get_or_insert_default(), kind, bytes);
        piece.picture?.size()
    }
}

fn count(media: &mut Media, kind: Kind, bytes: Option<u64>) {
    let (number, sum) = match kind {
        Kind::Image => (&mut media.images, &mut media.image_bytes),
        Kind::Audio => (&mut media.audios, &mut media.audio_bytes),
        Kind::Video => (&mut media.videos, &mut media.video_bytes),
        Kind::Document => (&mut media.documents, &mut media.document_bytes),
    };
    *number = Some(number.unwrap_or(0).saturating_add(1));
    if let Some(bytes) = bytes {
        *sum = Some(sum.unwrap_or(0).saturating_add(bytes));
    }
}

// === impl Start ===

impl Start {
    /// As many bytes as tell every scheme that is in use.
    const LENGTH: usize = 8;

    /// Takes what it lacks, and gives back the rest.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (mine, rest) = bytes.split_at(bytes.len().min(Self::LENGTH - self.length));
        self.bytes[self.length..][..mine.len()].copy_from_slice(mine);
        self.length += mine.len();
        rest
    }
}

// === impl UrlHead ===

impl UrlHead {
    const BASE64: &[u8] = b";base64";
    /// Longer than any type with its parameters.
    const MAX: usize = 512;

    /// Reads up to the comma; what comes then, and the bytes behind it.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> Option<(Form, &'a [u8])> {
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b',' {
                let is_base64 = self.tail.eq_ignore_ascii_case(Self::BASE64);
                let form = if is_base64 { Form::Base64 } else { Form::Elsewhere };
                return Some((form, &bytes[at + 1..]));
            }
            self.tail.rotate_left(1);
            *self.tail.last_mut()? = byte;
            self.length += 1;
            if self.length > Self::MAX {
                return Some((Form::Elsewhere, &[]));
            }
        }
        None
    }
}

// === impl Base64 ===

impl Base64 {
    fn count(&mut self, bytes: &[u8]) {
        let blanks = bytes.iter().filter(|byte| **byte <= b' ').count();
        let digits = bytes.len() - blanks;
        let backwards = bytes.iter().rev().filter(|byte| **byte > b' ');
        let padding = backwards.take_while(|byte| **byte == b'=').count();
        let before = if padding == digits { self.padding } else { 0 };
        self.padding = before.saturating_add(padding as u64);
        self.digits = self.digits.saturating_add(digits as u64);
    }

    fn decoded(self) -> u64 {
        let digits = self.digits - self.padding;
        digits / 4 * 3 + digits % 4 * 3 / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(feed: impl Fn(&mut Piece, &[u8]), text: &str) -> Option<u64> {
        let counts: Vec<_> = (1..=text.len().max(1))
            .map(|size| {
                let mut piece = Piece::default();
                piece.is(Kind::Image);
                text.as_bytes().chunks(size).for_each(|part| feed(&mut piece, part));
                let mut media = None;
                piece.end(&mut media);
                let media = media.expect("it is counted");
                assert_eq!(media.images, Some(1));
                media.image_bytes
            })
            .collect();
        assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "{text}: {counts:?}");
        counts[0]
    }

    #[test]
    fn base64_counts_as_what_it_stands_for() {
        let base64 = |text: &str| bytes(Piece::data, text);
        for (text, length) in [
            ("AA==", 1),
            ("AAA=", 2),
            ("AAAA", 3),
            ("AAAAAA", 4),
            ("AA", 1),
            ("AAAA\nAA = =\r\n", 4),
        ] {
            assert_eq!(base64(text), Some(length), "{text}");
        }
        assert_eq!(base64(""), None);
    }

    #[test]
    fn a_url_counts_what_it_holds_and_nothing_where_it_holds_nothing() {
        let url = |text: &str| bytes(|piece, part| piece.text(part, false), text);
        assert_eq!(url("data:image/png;base64,AAAA"), Some(3));
        assert_eq!(url("DATA:image/png;charset=x;BASE64,AAA="), Some(2));
        for text in
            ["", "https://a/b.png", "gs://a", "data:,a%20b", "data:image/png;base64", "AAAA"]
        {
            assert_eq!(url(text), None, "{text}");
        }
    }

    #[test]
    fn a_file_may_be_a_url_or_bare() {
        let file = |text: &str| bytes(|piece, part| piece.text(part, true), text);
        assert_eq!(file("data:application/pdf;base64,AAAA"), Some(3));
        assert_eq!(file("AAAAAAAAAAA="), Some(8));
        assert_eq!(file("AAA="), Some(2));
        assert_eq!(file("gs://bucket/a"), None);
    }
}
