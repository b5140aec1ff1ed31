use super::*;

/// What came, as lines.
#[derive(Debug, Default, PartialEq)]
struct Messages {
    open: String,
    all: Vec<String>,
}

impl Pieces for Messages {
    fn payload(&mut self, bytes: &[u8]) {
        self.open.push_str(&String::from_utf8_lossy(bytes));
    }
    fn end(&mut self) {
        self.all.push(std::mem::take(&mut self.open));
    }
    fn name(&mut self, _: &[u8]) {}
    fn header(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        self.all.push(format!("{name}={value}"));
    }
    fn done(&mut self) {}
}

fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = PRELUDE + headers.len() + payload.len() + CHECKSUM;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(total as u32).to_be_bytes());
    bytes.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn read(pieces: &[&[u8]]) -> Result<(Vec<String>, bool), NotUnderstood> {
    let (mut stream, mut messages) = (EventStream::default(), Messages::default());
    for piece in pieces {
        stream.feed(piece, &mut messages)?;
    }
    Ok((messages.all, stream.between()))
}

/// A header of every kind, and what is told of them.
const HEADERS: &[u8] = b"\x01a\x00\x01b\x01\x01c\x02\x07\x01d\x03\x00\x07\x01e\x04\x00\x00\x00\x07\
    \x01f\x05\x00\x00\x00\x00\x00\x00\x00\x07\x01g\x06\x00\x02xy\x01h\x07\x00\x03abc\
    \x01i\x08\x00\x00\x00\x00\x00\x00\x00\x07\x01j\x090123456789abcdef";

#[test]
fn messages_are_told_wherever_they_are_cut() {
    let bytes = [message(HEADERS, b"{}"), message(b"", b""), message(b"", b"[1]")].concat();
    let expected = Ok((["h=abc", "{}", "", "[1]"].map(str::to_owned).to_vec(), true));
    assert_eq!(read(&[&bytes]), expected);
    for at in 0..bytes.len() {
        assert_eq!(read(&[&bytes[..at], &bytes[at..]]), expected, "cut at {at}");
    }
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), expected);
}

#[test]
fn a_message_that_is_not_whole_is_seen() {
    let bytes = message(HEADERS, b"{}");
    for at in 1..bytes.len() {
        assert_eq!(read(&[&bytes[..at]]), Ok((Vec::new(), false)), "{at}");
    }
}

#[test]
fn any_flipped_bit_is_found_before_anything_is_told() {
    let bytes = message(HEADERS, b"{\"a\":1}");
    for at in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x10;
        assert_eq!(read(&[&wrong]), Err(NotUnderstood::BadChecksum), "at {at}");
    }
}

#[test]
fn a_wrong_prelude_is_refused_at_its_last_byte() {
    let bytes = &message(b"", b"{}")[..PRELUDE];
    let mut wrong = bytes.to_vec();
    wrong[0] ^= 1;
    assert_eq!(read(&[bytes]), Ok((Vec::new(), false)));
    for at in 0..PRELUDE {
        assert_eq!(read(&[&wrong[..at], &wrong[at..]]), Err(NotUnderstood::BadChecksum), "{at}");
    }
}

#[test]
fn large_messages_are_told_as_they_come_and_checked_at_the_end() {
    let payload = vec![b'x'; 3 * MAX_COLLECTED];
    let mut bytes = message(HEADERS, &payload);
    let pieces: Vec<_> = bytes.chunks(1000).collect();
    let (told, is_whole) = read(&pieces).expect("a legal message");
    assert_eq!((told[1].len(), is_whole), (payload.len(), true));

    *bytes.last_mut().expect("bytes") ^= 1;
    assert_eq!(read(&[&bytes]), Err(NotUnderstood::BadChecksum));
}

#[test]
fn absurd_lengths_are_refused() {
    let prelude = |total: u32, headers: u32| {
        let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        read(&[&bytes, b"x"])
    };
    assert_eq!(prelude(u32::MAX, 0), Err(NotUnderstood::FrameTooLarge));
    assert_eq!(prelude(1 << 20, 1 << 19), Err(NotUnderstood::FrameTooLarge));
    assert_eq!(prelude(15, 0), Err(NotUnderstood::BadFrame));
    assert_eq!(prelude(40, 30), Err(NotUnderstood::BadFrame));
}

#[test]
fn illegal_headers_are_refused() {
    for headers in [b"\x00\x00".as_slice(), b"\x01a\x0a", b"\x01a\x07\x00\x09x", b"\x05a"] {
        assert_eq!(read(&[&message(headers, b"")]), Err(NotUnderstood::BadFrame));
    }
}
