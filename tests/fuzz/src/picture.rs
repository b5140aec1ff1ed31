//! Pictures for Veo: wherever their base64 is cut, a small one is found by the rules of its format.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::input::{Input, cut};
use crate::request::{VEO, record};

/// What is looked at of a picture that is no JPEG.
const HEAD: usize = 30;
/// Pixels that a side should have.
const MIN_SIDE: u32 = 512;

/// Where a picture may stand in the body.
const PLACES: [(&str, &str); 4] = [
    (r#"{"instances":[{"image":{"bytesBase64Encoded":""#, r#""}}]}"#),
    (r#"{"instances":[{"lastFrame":{"mimeType":"image/x","imageBytes":""#, r#""}}]}"#),
    (r#"{"instances":[{"parameters":{"initImage":"data:image/png;base64,"#, r#""}}]}"#),
    (r#"{"instances":[{"referenceImages":[{"image":{"bytesBase64Encoded":""#, r#""}}]}]}"#),
];

pub(crate) fn picture(data: &[u8]) {
    let mut input = Input::new(data);
    let (seed, kind, blanks) = (input.short(), input.byte(), input.byte());
    let picture = input.rest();
    let (before, behind) = PLACES[usize::from(kind) % PLACES.len()];
    let digits = base64(picture, kind >> 2, blanks);
    let body = [before.as_bytes(), digits.as_bytes(), behind.as_bytes()].concat();
    let whole = record(VEO, &[&body]);
    assert_eq!(record(VEO, &cut(seed, &body)), whole, "cut");
    assert_eq!(record(VEO, &cut(0, &body)), whole, "byte by byte");

    let is_small = size(picture).is_some_and(|(width, height)| width.min(height) < MIN_SIDE);
    let is_found = whole.warnings.iter().any(|warning| &**warning == "image_under_512px");
    assert_eq!(is_found, is_small, "{:?}", size(picture));
    let media = whole.media.expect("it has a picture");
    assert_eq!(media.images, Some(1));
    let bytes = media.image_bytes.unwrap_or_default();
    assert_eq!(bytes, picture.len() as u64);
}

/// The digits in either alphabet, padded or not, in lines or not.
fn base64(bytes: &[u8], kind: u8, blanks: u8) -> String {
    let digits = match kind % 4 {
        0 => STANDARD.encode(bytes),
        1 => STANDARD_NO_PAD.encode(bytes),
        2 => URL_SAFE.encode(bytes),
        _ => URL_SAFE_NO_PAD.encode(bytes),
    };
    if blanks == 0 {
        return digits;
    }
    let lines = digits.as_bytes().chunks(blanks.into());
    let lines: Vec<_> = lines.map(|line| std::str::from_utf8(line).expect("digits")).collect();
    lines.join("\\r\\n")
}

/// Width and height, where the picture says them.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let sides = match bytes {
        [0xFF, 0xD8, ..] if bytes.len() >= HEAD => jpeg(&bytes[2..]),
        [0xFF, 0xD8, ..] => None,
        _ => head(&bytes[..bytes.len().min(HEAD)]),
    };
    sides.filter(|(width, height)| *width > 0 && *height > 0)
}

fn jpeg(mut bytes: &[u8]) -> Option<(u32, u32)> {
    loop {
        let behind = bytes.strip_prefix(&[0xFF])?;
        let fill = behind.iter().take_while(|byte| **byte == 0xFF).count();
        let (&code, segment) = behind[fill..].split_first()?;
        match code {
            0x01 | 0xD0..=0xD8 => {
                bytes = segment;
                continue;
            }
            0x00 | 0xD9 | 0xDA => return None,
            _ => {}
        }
        let length = usize::from(number_16(segment, 0, u16::from_be_bytes)?);
        let is_frame = matches!(code, 0xC0..=0xCF) && ![0xC4, 0xC8, 0xCC].contains(&code);
        if is_frame && length >= 7 {
            let side = |at| number_16(segment, at, u16::from_be_bytes).map(u32::from);
            return Some((side(5)?, side(3)?));
        }
        if length < 2 {
            return None;
        }
        bytes = segment.get(length..)?;
    }
}

fn head(bytes: &[u8]) -> Option<(u32, u32)> {
    let two = |at| number_16(bytes, at, u16::from_le_bytes).map(u32::from);
    let four = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let three = |at: usize| Some(two(at)? | u32::from(*bytes.get(at + 2)?) << 16);
    let is = |at: usize, word: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(word));
    let is_webp = is(0, b"RIFF") && is(8, b"WEBPVP8");
    if is(0, b"\x89PNG\r\n\x1a\n") && is(12, b"IHDR") {
        Some((four(16)?.swap_bytes(), four(20)?.swap_bytes()))
    } else if is(0, b"GIF87a") || is(0, b"GIF89a") {
        Some((two(6)?, two(8)?))
    } else if is(0, b"BM") && four(14)? == 12 {
        Some((two(18)?, two(20)?))
    } else if is(0, b"BM") {
        let side = |at| Some((four(at)? as i32).unsigned_abs());
        Some((side(18)?, side(22)?))
    } else if is_webp && is(15, b" ") && is(23, b"\x9D\x01\x2A") {
        Some((two(26)? & 0x3FFF, two(28)? & 0x3FFF))
    } else if is_webp && is(15, b"L") && is(20, b"\x2F") {
        let bits = four(21)?;
        Some(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
    } else if is_webp && is(15, b"X") {
        Some((three(24)? + 1, three(27)? + 1))
    } else {
        None
    }
}

fn number_16(bytes: &[u8], at: usize, read: fn([u8; 2]) -> u16) -> Option<u16> {
    Some(read(*bytes.get(at..)?.first_chunk()?))
}
