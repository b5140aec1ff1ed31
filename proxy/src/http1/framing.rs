//! Where the body of an HTTP/1.1 message ends, found without touching a byte of it.
//!
//! RFC 9112, sections 6 and 7. Strict: what two readers could read in two ways is an error.

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks, until one of no bytes.
    Chunked,
    /// Until the sender closes (responses only).
    UntilClose,
}

/// Why the framing of a body cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("chunk size is not a number in hexadecimal")]
    ChunkSize,
    #[error("chunk is not closed by CRLF")]
    ChunkEnd,
    #[error("chunk extension or trailer is over {} bytes or has illegal bytes", MAX_EXTRA)]
    Extra,
}

/// Bytes that chunk extensions and trailers may take in all.
const MAX_EXTRA: u32 = 16 * 1024;

/// Follows one body through its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    state: State,
    extra: u32,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// Digits of a chunk size; so many were read.
    Size {
        value: u64,
        digits: u8,
    },
    /// After the size: white space or an extension, to the CR.
    Extension {
        value: u64,
    },
    SizeLf {
        value: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends it all.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl Decoder {
    /// A decoder at the start of a body.
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extra: 0, trailers: Vec::new() }
    }

    /// How many bytes are to come, where nothing but that says where the body ends.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.state {
            State::Length(length) => Some(length),
            _ => None,
        }
    }

    /// Whether the body has come to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The sender closed: whether that is a clean end.
    pub(crate) fn close(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// The trailer section as it came, without its last empty line.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Follows `bytes`, shows each run of payload, and returns how many of them belong to this body.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Result<usize, FramingError> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            at += self.advance_a_run(&bytes[at..], &mut payload)?;
        }
        Ok(at)
    }

    /// The same, no further than to the end of the next run.
    pub(crate) fn advance_a_run(
        &mut self,
        bytes: &[u8],
        mut payload: impl FnMut(&[u8]),
    ) -> Result<usize, FramingError> {
        let mut at = 0;
        let mut has_run = false;
        while at < bytes.len() && !has_run && self.state != State::Done {
            let rest = &bytes[at..];
            has_run = matches!(self.state, State::Length(_) | State::Data(_) | State::UntilClose);
            at += match self.state {
                State::Length(left) => {
                    let (run, left) = run(rest, left);
                    payload(run);
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    run.len()
                }
                State::Data(left) => {
                    let (run, left) = run(rest, left);
                    payload(run);
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    run.len()
                }
                State::UntilClose => {
                    payload(rest);
                    rest.len()
                }
                _ => {
                    self.state = self.step(rest[0])?;
                    1
                }
            };
        }
        Ok(at)
    }

    /// One byte of what stands between the payload.
    fn step(&mut self, byte: u8) -> Result<State, FramingError> {
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err(FramingError::ChunkSize);
                }
                let digit = (byte as char).to_digit(16).expect("a hexadecimal digit");
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(FramingError::ChunkSize),
            (State::Size { value, .. }, b'\r') => State::SizeLf { value },
            (State::Size { value, .. }, b';' | b' ' | b'\t') => State::Extension { value },
            (State::Size { .. }, _) => return Err(FramingError::ChunkSize),
            (State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Extension { value }, _) => {
                self.count_extra(byte)?;
                State::Extension { value }
            }
            (State::SizeLf { value: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { value }, b'\n') => State::Data(value),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            // A line that goes on from the one before: obsolete, and read in two ways.
            (State::TrailerStart, b' ' | b'\t' | b':') => return Err(FramingError::Extra),
            (State::Trailer, b'\r') => {
                self.trailers.push(byte);
                State::TrailerLf
            }
            (State::TrailerStart | State::Trailer, _) => {
                self.count_extra(byte)?;
                self.trailers.push(byte);
                State::Trailer
            }
            (State::TrailerLf, b'\n') => {
                self.trailers.push(byte);
                State::TrailerStart
            }
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(FramingError::ChunkEnd),
        })
    }

    fn count_extra(&mut self, byte: u8) -> Result<(), FramingError> {
        self.extra += 1;
        let legal = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        if legal && self.extra <= MAX_EXTRA { Ok(()) } else { Err(FramingError::Extra) }
    }
}

fn run(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (&bytes[..len], left - len as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step` and returns the payload and how many bytes were taken.
    fn decode(
        framing: Framing,
        bytes: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, usize, bool), FramingError> {
        let mut decoder = Decoder::new(framing);
        let (mut payload, mut taken) = (Vec::new(), 0);
        for piece in bytes.chunks(step) {
            let n = decoder.advance(piece, |run| payload.extend_from_slice(run))?;
            taken += n;
            if n < piece.len() {
                break;
            }
        }
        Ok((payload, taken, decoder.is_done()))
    }

    #[test]
    fn a_chunked_body_reads_the_same_however_it_is_cut() {
        let body = b"4;a=b\r\nwiki\r\n0A \r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nnext";
        for step in 1..=body.len() {
            let (payload, taken, done) = decode(Framing::Chunked, body, step).expect("legal");
            assert_eq!(payload, b"wiki0123456789");
            assert_eq!(taken, body.len() - 4, "step {step}");
            assert!(done);
        }
    }

    #[test]
    fn a_sized_body_ends_at_its_length() {
        for step in 1..8 {
            let (payload, taken, done) =
                decode(Framing::Length(5), b"12345678", step).expect("legal");
            assert_eq!((payload.as_slice(), taken, done), (&b"12345"[..], 5, true));
        }
    }

    #[test]
    fn only_a_body_without_length_may_end_by_closing() {
        for (framing, clean) in [
            (Framing::UntilClose, true),
            (Framing::Length(3), false),
            (Framing::Chunked, false),
            (Framing::Empty, true),
        ] {
            assert_eq!(Decoder::new(framing).close(), clean, "{framing:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for body in [
            &b"\r\n"[..],
            b"4\nwiki",
            b"-1\r\n",
            b"0x4\r\nwiki\r\n",
            b"+4\r\nwiki\r\n",
            b"4\r\nwikiX",
            b"4\r\nwiki\n0\r\n\r\n",
            b"4;a\nb\r\nwiki\r\n",
            b"4;\0\r\nwiki\r\n",
            b"10000000000000000\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nx: a\nb\r\n\r\n",
        ] {
            assert!(
                decode(Framing::Chunked, body, 1).is_err(),
                "{:?}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn endless_extensions_and_trailers_are_refused() {
        for start in ["4;", "0\r\nx:"] {
            let body = [start.as_bytes(), &[b'a'; MAX_EXTRA as usize + 1]].concat();
            assert_eq!(decode(Framing::Chunked, &body, 1000), Err(FramingError::Extra));
        }
    }
}
