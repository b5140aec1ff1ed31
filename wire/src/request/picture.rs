//! How large a picture is, from the beginning of its base64.
//!
//! PNG, JPEG, WebP, GIF and BMP say it early; a JPEG behind what the camera had to tell. What is
//! not found within a bound stays unknown.

/// Decoded bytes that are looked at: a JPEG may carry a preview, profiles and the like up front.
const MAX_BYTES: usize = 1 << 20;
/// Where all but JPEG have said it.
const HEAD: usize = 30;
/// Base64 digits that are decoded at once.
const GROUP: usize = 256;

/// A picture, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Picture {
    /// Bits that wait for the rest of their byte.
    bits: u32,
    waiting: u32,
    taken: usize,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Head { bytes: [u8; HEAD], length: usize },
    Jpeg(Jpeg),
    Known(Size),
    Unknown,
}

/// Where in a JPEG the reader stands.
#[derive(Clone, Copy, Debug)]
enum Jpeg {
    /// Before the `FF` of a marker.
    Mark,
    /// After it.
    Code,
    /// In the length of a segment with this code.
    Length { code: u8, high: Option<u8> },
    /// Within a segment that says nothing.
    Skip(usize),
    /// Within the one that says the size: precision, height and width.
    Frame { bytes: [u8; 5], length: usize },
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u32, pub(super) u32);

// === impl Picture ===

impl Picture {
    /// More of the base64.
    pub(super) fn read(&mut self, digits: &[u8]) {
        for digits in digits.chunks(GROUP) {
            if matches!(self.step, Step::Known(_) | Step::Unknown) {
                return;
            }
            let mut bytes = [0; GROUP];
            let length = self.decode(digits, &mut bytes);
            self.take(&bytes[..length]);
        }
    }

    /// The size, if the picture has said it.
    pub(super) fn size(&self) -> Option<Size> {
        match &self.step {
            Step::Known(size) => Some(*size),
            Step::Head { bytes, length } => size(&bytes[..*length]),
            Step::Jpeg(_) | Step::Unknown => None,
        }
    }

    fn decode(&mut self, digits: &[u8], bytes: &mut [u8; GROUP]) -> usize {
        let mut length = 0;
        for value in digits.iter().filter_map(|digit| sextet(*digit)) {
            self.bits = self.bits << 6 | value;
            self.waiting += 6;
            if self.waiting >= 8 {
                self.waiting -= 8;
                bytes[length] = (self.bits >> self.waiting) as u8;
                length += 1;
            }
        }
        length
    }

    fn take(&mut self, mut bytes: &[u8]) {
        self.taken += bytes.len();
        while !bytes.is_empty() {
            match &mut self.step {
                Step::Head { bytes: head, length } => {
                    let (mine, rest) = bytes.split_at(bytes.len().min(HEAD - *length));
                    head[*length..][..mine.len()].copy_from_slice(mine);
                    *length += mine.len();
                    bytes = rest;
                    if *length == HEAD {
                        self.step = Step::after(*head);
                    }
                }
                Step::Jpeg(jpeg) => match jpeg.take(&mut bytes) {
                    Some(step) => self.step = step,
                    None => continue,
                },
                Step::Known(_) | Step::Unknown => return,
            }
        }
        if self.taken > MAX_BYTES && matches!(self.step, Step::Jpeg(_)) {
            self.step = Step::Unknown;
        }
    }
}

// === impl Step ===

impl Default for Step {
    fn default() -> Self {
        Self::Head { bytes: [0; HEAD], length: 0 }
    }
}

impl Step {
    /// What the first bytes say; a JPEG has to be read on.
    fn after(head: [u8; HEAD]) -> Self {
        if let [0xFF, 0xD8, rest @ ..] = &head {
            let (mut step, mut rest) = (Jpeg::Mark, &rest[..]);
            while !rest.is_empty() {
                if let Some(step) = step.take(&mut rest) {
                    return step;
                }
            }
            return Self::Jpeg(step);
        }
        size(&head).map_or(Self::Unknown, Self::Known)
    }
}

// === impl Jpeg ===

impl Jpeg {
    /// Takes some of the bytes, at least one; where that decides it, what is known then.
    fn take(&mut self, bytes: &mut &[u8]) -> Option<Step> {
        let (&byte, rest) = bytes.split_first()?;
        if let Self::Skip(left) = self {
            let length = bytes.len().min(*left);
            *bytes = &bytes[length..];
            *left -= length;
            if *left == 0 {
                *self = Self::Mark;
            }
            return None;
        }
        *bytes = rest;
        *self = match (*self, byte) {
            (Self::Mark, 0xFF) | (Self::Code, 0xFF) => Self::Code,
            (Self::Mark, _) => return Some(Step::Unknown),
            // These stand alone.
            (Self::Code, 0x01 | 0xD0..=0xD8) => Self::Mark,
            // The picture itself begins, or has ended, and its size did not come.
            (Self::Code, 0x00 | 0xD9 | 0xDA) => return Some(Step::Unknown),
            (Self::Code, code) => Self::Length { code, high: None },
            (Self::Length { code, high: None }, high) => Self::Length { code, high: Some(high) },
            (Self::Length { code, high: Some(high) }, low) => {
                match usize::from(u16::from_be_bytes([high, low])).checked_sub(2) {
                    None => return Some(Step::Unknown),
                    Some(5..) if is_frame(code) => Self::Frame { bytes: [0; 5], length: 0 },
                    Some(0) => Self::Mark,
                    Some(left) => Self::Skip(left),
                }
            }
            (Self::Frame { mut bytes, length }, byte) => {
                bytes[length] = byte;
                if length + 1 < bytes.len() {
                    Self::Frame { bytes, length: length + 1 }
                } else {
                    let [_, height_high, height_low, width_high, width_low] = bytes;
                    let height = u16::from_be_bytes([height_high, height_low]);
                    let width = u16::from_be_bytes([width_high, width_low]);
                    let size = known(width.into(), height.into());
                    return Some(size.map_or(Step::Unknown, Step::Known));
                }
            }
            (Self::Skip(_), _) => Self::Mark,
        };
        None
    }
}

/// Whether a JPEG's segment with this code begins a frame; the codes between are tables.
fn is_frame(code: u8) -> bool {
    matches!(code, 0xC0..=0xCF) && !matches!(code, 0xC4 | 0xC8 | 0xCC)
}

/// The size of everything that says it in its first bytes.
fn size(head: &[u8]) -> Option<Size> {
    let two = |at: usize| Some(u32::from(u16::from_le_bytes(*head.get(at..)?.first_chunk()?)));
    let four = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    match head {
        [
            0x89,
            b'P',
            b'N',
            b'G',
            b'\r',
            b'\n',
            0x1A,
            b'\n',
            _,
            _,
            _,
            _,
            b'I',
            b'H',
            b'D',
            b'R',
            ..,
        ] => known(four(16)?.swap_bytes(), four(20)?.swap_bytes()),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => known(two(6)?, two(8)?),
        [b'B', b'M', ..] if four(14)? == 12 => known(two(18)?, two(20)?),
        [b'B', b'M', ..] => {
            known((four(18)? as i32).unsigned_abs(), (four(22)? as i32).unsigned_abs())
        }
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            b'V',
            b'P',
            b'8',
            kind,
            ..,
        ] => {
            match kind {
                b' ' if head.get(23..26)? == [0x9D, 0x01, 0x2A] => {
                    known(two(26)? & 0x3FFF, two(28)? & 0x3FFF)
                }
                b'L' if *head.get(20)? == 0x2F => {
                    let bits = four(21)?;
                    known((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
                }
                b'X' => {
                    // Three bytes each, of which the last one ends the head.
                    let height = two(27)? | u32::from(*head.get(29)?) << 16;
                    known((four(24)? & 0xFF_FFFF) + 1, height + 1)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// No picture has no width; one that says so says it elsewhere.
fn known(width: u32, height: u32) -> Option<Size> {
    (width > 0 && height > 0).then_some(Size(width, height))
}

/// The six bits of a digit, in either alphabet.
fn sextet(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x06\0\0\0abcd";

    fn read(bytes: &[u8]) -> Option<Size> {
        let digits = STANDARD.encode(bytes);
        let sizes: Vec<_> = [1, 3, 4, 7, 64, 1 << 20]
            .into_iter()
            .map(|piece| {
                let mut picture = Picture::default();
                digits.as_bytes().chunks(piece).for_each(|digits| picture.read(digits));
                picture.size()
            })
            .collect();
        assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
        sizes[0]
    }

    /// A JPEG whose size stands behind segments of these lengths.
    fn jpeg(segments: &[usize]) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8];
        for length in segments {
            bytes.extend([0xFF, 0xE1]);
            bytes.extend((*length as u16 + 2).to_be_bytes());
            // A preview within has a size of its own.
            bytes.extend([0xFF, 0xC0, 0, 11, 8, 0, 1, 0, 1].iter().cycle().take(*length));
        }
        bytes.extend([0xFF, 0xDB, 0, 3, 1, 0xFF, 0xFF, 0xC2, 0, 11, 8, 0x01, 0xE0, 0x02, 0x80, 1]);
        bytes.extend([0; 16]);
        bytes
    }

    fn webp(kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WEBPVP8".to_vec();
        bytes.push(kind);
        bytes.extend([0; 4]);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn every_format_says_its_size() {
        let size = Some(Size(640, 480));
        assert_eq!(read(PNG), size, "PNG");
        assert_eq!(read(b"GIF89a\x80\x02\xe0\x01\xf7\0\0"), size, "GIF");
        let bmp = b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x28\0\0\0\x80\x02\0\0\x20\xfe\xff\xff\x01\0\x18\0\0";
        assert_eq!(read(bmp), size, "BMP from top to bottom");
        let bmp = b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x0c\0\0\0\x80\x02\xe0\x01\x01\0\x18\0";
        assert_eq!(read(bmp), size, "old BMP");
        let lossy = webp(b' ', b"\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01\0");
        assert_eq!(read(&lossy), size, "WebP VP8");
        let bits = (640u32 - 1) | (480 - 1) << 14;
        let lossless = [&[0x2F][..], &bits.to_le_bytes(), &[0; 8]].concat();
        assert_eq!(read(&webp(b'L', &lossless)), size, "WebP VP8L");
        let extended = webp(b'X', b"\x10\0\0\0\x7f\x02\0\xdf\x01\0more");
        assert_eq!(read(&extended), size, "WebP VP8X");
        assert_eq!(read(&jpeg(&[])), size, "JPEG");
    }

    #[test]
    fn a_jpeg_says_its_size_behind_large_segments() {
        assert_eq!(read(&jpeg(&[65_000, 0, 65_533, 9, 40_000])), Some(Size(640, 480)));
    }

    #[test]
    fn a_size_that_does_not_come_in_time_stays_unknown() {
        assert_eq!(read(&jpeg(&[65_533; 20])), None);
    }

    #[test]
    fn what_is_no_picture_has_no_size() {
        for bytes in [
            &b""[..],
            b"%PDF-1.7 and more than thirty bytes of it",
            b"\xff\xd8",
            b"\xff\xd8\xff\xe1\0\x01 a length that cannot be, and more",
            b"\xff\xd8\xff\xda\0\x04 the picture begins without a size",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\0more and more",
            &PNG[..20],
        ] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn either_alphabet_reads() {
        let bytes = [&PNG[..16], &[0, 0, 0xFB, 0xFF, 0, 0, 0xFF, 0xBF, 1, 2, 3, 4, 5, 6]].concat();
        let mut picture = Picture::default();
        picture.read(URL_SAFE_NO_PAD.encode(&bytes).as_bytes());
        assert_eq!((picture.size(), read(&bytes)), (Some(Size(0xFBFF, 0xFFBF)), picture.size()));
    }
}
