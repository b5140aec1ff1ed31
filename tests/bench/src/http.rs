//! As much of HTTP/1.1 as the mock and the client need, and no more.
//!
//! Heads are read by httparse; bodies come by their length or in chunks.

use anyhow::{Context as _, Result, bail, ensure};

const MAX_HEADERS: usize = 64;

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(usize),
    /// As its chunks say.
    Chunked,
}

/// What a head says that matters here.
#[derive(Debug)]
pub struct Head {
    /// Bytes of the head itself, the empty line included.
    pub length: usize,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the connection ends with this message.
    pub close: bool,
    /// The value of `x-workload`: what the mock is asked to play.
    pub workload: Option<String>,
}

/// Reads the head of a request; `None` while it is incomplete.
pub fn request_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes).context("request head")? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => head(length, request.headers).map(Some),
    }
}

/// Reads the head of a response, which must be a 200; `None` while it is incomplete.
pub fn response_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes).context("response head")? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            let status = response.code.unwrap_or(0);
            ensure!(status == 200, "answered {status}");
            head(length, response.headers).map(Some)
        }
    }
}

fn head(length: usize, headers: &[httparse::Header<'_>]) -> Result<Head> {
    let mut head = Head { length, framing: Framing::Length(0), close: false, workload: None };
    for header in headers {
        let value = std::str::from_utf8(header.value).context("header value")?;
        if header.name.eq_ignore_ascii_case("content-length") {
            head.framing = Framing::Length(value.parse().context("content-length")?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("x-workload") {
            head.workload = Some(value.to_owned());
        }
    }
    Ok(head)
}

/// Takes the chunk framing off a body, however it is cut.
#[derive(Debug, Default)]
pub struct Dechunker {
    state: State,
}

#[derive(Debug)]
enum State {
    /// In the line with the size, as far as it is known.
    Size(usize),
    Data(usize),
    /// In the line end behind the data.
    DataEnd,
    /// Behind the last chunk, in a line of so many bytes.
    Trailer(usize),
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size(0)
    }
}

impl Dechunker {
    /// Hands the data within `input` to `data`; true once the body has ended.
    pub fn feed(
        &mut self,
        mut input: &[u8],
        mut data: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        while let Some(&byte) = input.first() {
            if let State::Data(left) = self.state {
                let (now, later) = input.split_at(left.min(input.len()));
                data(now)?;
                input = later;
                self.state = match left - now.len() {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                continue;
            }
            input = &input[1..];
            self.state = match (&self.state, byte) {
                (State::Size(0), b'\n') => State::Trailer(0),
                (State::Size(size), b'\n') => State::Data(*size),
                (State::Size(size), b'\r') => State::Size(*size),
                (State::Size(size), digit) => {
                    let digit = char::from(digit).to_digit(16).context("chunk size")?;
                    State::Size(size * 16 + digit as usize)
                }
                (State::DataEnd, b'\r') => State::DataEnd,
                (State::DataEnd, b'\n') => State::Size(0),
                (State::Trailer(0), b'\n') => State::Done,
                (State::Trailer(_), b'\n') => State::Trailer(0),
                (State::Trailer(length), b'\r') => State::Trailer(*length),
                (State::Trailer(length), _) => State::Trailer(length + 1),
                (state, byte) => bail!("byte {byte:#04x} in a chunked body at {state:?}"),
            };
        }
        Ok(matches!(self.state, State::Done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_reads_the_same_cut_anywhere() {
        let body = b"5\r\nhello\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n";
        for cut in 0..body.len() {
            let mut seen = Vec::new();
            let mut dechunker = Dechunker::default();
            let mut done = false;
            for part in [&body[..cut], &body[cut..]] {
                done = dechunker
                    .feed(part, |data| {
                        seen.extend_from_slice(data);
                        Ok(())
                    })
                    .expect("the body is well formed");
            }
            assert!(done, "cut at {cut}");
            assert_eq!(seen, b"helloabcdefghijklmnopqrstuvwxyz", "cut at {cut}");
        }
    }

    #[test]
    fn bytes_behind_the_end_of_a_chunked_body_are_an_error() {
        let mut dechunker = Dechunker::default();
        assert!(dechunker.feed(b"0\r\n\r\nHTTP/1.1 200 OK", |_| Ok(())).is_err());
    }

    #[test]
    fn a_head_tells_its_framing() {
        let head = response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello")
            .expect("the head is well formed")
            .expect("the head is complete");
        assert_eq!(head.framing, Framing::Length(12));
        assert!(!head.close);
    }
}
