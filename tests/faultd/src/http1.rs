//! HTTP/1.1 by hand: requests are read strictly, and what is said is written as it is told.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::answer::Reads;
use crate::perform::{Speaker, perform};
use crate::request::Request;
use crate::server::Shared;
use crate::step::Fields;
use crate::tally::{Ended, Tally};
use crate::{Frame, PATIENCE};

/// Bytes of a head that are read.
const MAX_HEAD: usize = 256 << 10;

/// One connection.
pub(crate) struct Http1<'a> {
    tcp: Option<TcpStream>,
    ahead: Vec<u8>,
    tally: &'a Tally,
    /// Whether the body that is said is said in chunks.
    is_chunked: bool,
    /// Whether the answer ends with the connection.
    ends_by_closing: bool,
    /// Whether some of the request was left unread.
    leaves_body: bool,
}

/// Serves a connection to its end; whether the peer has ended it.
pub(crate) fn serve(tcp: TcpStream, shared: &Shared) -> bool {
    let mut line = Http1 {
        tcp: Some(tcp),
        ahead: Vec::new(),
        tally: &shared.tally,
        is_chunked: false,
        ends_by_closing: false,
        leaves_body: false,
    };
    loop {
        match line.call(shared) {
            Ok(Next::Another) => {}
            Ok(Next::None) => return false,
            Ok(Next::Left) | Err(_) => return true,
        }
    }
}

/// What comes behind a call.
enum Next {
    Another,
    /// The script has closed the connection.
    None,
    /// The peer has left.
    Left,
}

impl Http1<'_> {
    fn call(&mut self, shared: &Shared) -> io::Result<Next> {
        let mut request = self.head()?;
        if let Some(told) = shared.told(&request) {
            self.raw(told.as_bytes())?;
            return Ok(Next::Another);
        }
        let (answer, place) = shared.admit(&request);
        self.leaves_body = answer.reads == Reads::Head;
        if answer.reads == Reads::Whole {
            let waits = request.field("expect").is_some_and(|text| text.starts_with("100"));
            if waits && answer.continues {
                self.raw(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if let Err(error) = self.body(&mut request) {
                self.tally.note(|counts| counts.end(place, Ended::Cancelled));
                return Err(error);
            }
        }
        shared.came(place, &request);
        let steps = answer.steps(&request);
        let ended = perform(&steps, self, &shared.tally, place);
        shared.tally.note(|counts| counts.end(place, ended));
        Ok(match (ended, &self.tcp) {
            (Ended::Cancelled, _) => Next::Left,
            (Ended::AsScripted, None) => Next::None,
            (Ended::AsScripted, Some(_)) if self.ends_by_closing => {
                self.close();
                Next::None
            }
            (Ended::AsScripted, Some(_)) if self.leaves_body => {
                while !self.peer_left_within(Duration::from_secs(1)) {}
                Next::Left
            }
            (Ended::AsScripted, Some(_)) => Next::Another,
        })
    }

    fn head(&mut self) -> io::Result<Request> {
        let block = self.through(b"\r\n\r\n", MAX_HEAD)?;
        let text = String::from_utf8_lossy(&block);
        let mut lines = text.trim_end().split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        let fields = lines.filter_map(field).collect();
        Ok(Request { method, target, fields, ..Request::default() })
    }

    fn body(&mut self, request: &mut Request) -> io::Result<()> {
        if request.field("transfer-encoding").is_some() {
            return self.chunks(request);
        }
        let length = request.field("content-length").map_or(Ok(0), str::parse);
        self.take(length.map_err(io::Error::other)?, request)
    }

    fn chunks(&mut self, request: &mut Request) -> io::Result<()> {
        loop {
            let line = self.through(b"\r\n", MAX_HEAD)?;
            let line = String::from_utf8_lossy(&line);
            let digits = line.trim_end().split(';').next().unwrap_or_default();
            let length = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
            if length == 0 {
                while self.through(b"\r\n", MAX_HEAD)? != b"\r\n" {}
                return Ok(());
            }
            self.take(length, request)?;
            self.through(b"\r\n", MAX_HEAD)?;
        }
    }

    fn take(&mut self, length: u64, request: &mut Request) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.ahead.is_empty() {
                self.fill()?;
            }
            let n = self.ahead.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            request.keep(&self.ahead[..n]);
            self.ahead.drain(..n);
            left -= n as u64;
        }
        Ok(())
    }

    /// Reads until these bytes have come, and gives all up to their end.
    fn through(&mut self, end: &[u8], most: usize) -> io::Result<Vec<u8>> {
        let mut looked_at = 0;
        loop {
            let from = looked_at.min(self.ahead.len());
            let found = self.ahead[from..].windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Ok(self.ahead.drain(..from + at + end.len()).collect());
            }
            if self.ahead.len() > most {
                return Err(io::ErrorKind::InvalidData.into());
            }
            looked_at = self.ahead.len().saturating_sub(end.len() - 1);
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let Some(mut tcp) = self.tcp.as_ref() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut piece = [0; 64 << 10];
        match tcp.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.ahead.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }
}

impl Speaker for Http1<'_> {
    fn head(&mut self, status: u16, fields: &Fields, every: Option<Duration>) -> io::Result<()> {
        let has = |name: &str| fields.iter().any(|(field, _)| field == name);
        let is_interim = status < 200;
        if !is_interim {
            self.is_chunked = has("transfer-encoding");
            self.ends_by_closing = !self.is_chunked && !has("content-length");
        }
        let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let Some(every) = every else { return self.raw(text.as_bytes()) };
        for byte in text.bytes() {
            self.raw(&[byte])?;
            if self.peer_left_within(every) {
                return Err(io::ErrorKind::NotConnected.into());
            }
        }
        Ok(())
    }

    fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        match self.is_chunked {
            true => {
                self.raw(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
            }
            false => self.raw(piece),
        }
    }

    fn half_data(&mut self, piece: &[u8]) -> io::Result<()> {
        let half = &piece[..piece.len() / 2];
        match self.is_chunked {
            true => self.raw(&[format!("{:x}\r\n", piece.len()).as_bytes(), half].concat()),
            false => self.raw(half),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self.is_chunked {
            true => self.raw(b"0\r\n\r\n"),
            false => Ok(()),
        }
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(mut tcp) = self.tcp.as_ref() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        tcp.write_all(bytes)?;
        self.tally.note(|counts| counts.bytes_sent += bytes.len() as u64);
        Ok(())
    }

    fn frames(&mut self, _: &[Frame]) -> io::Result<()> {
        Ok(())
    }

    fn peer_left_within(&mut self, limit: Duration) -> bool {
        self.tcp.as_ref().is_none_or(|tcp| has_left(tcp, limit))
    }

    fn half_close(&mut self) {
        if let Some(tcp) = &self.tcp {
            let _ = tcp.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self) {
        let Some(tcp) = self.tcp.take() else { return };
        if self.leaves_body {
            drain(&tcp);
        }
    }

    fn reset(&mut self) {
        if let Some(tcp) = self.tcp.take() {
            reset(tcp);
        }
    }

    fn reset_stream(&mut self, _: u32) -> io::Result<()> {
        self.reset();
        Ok(())
    }

    fn go_away(&mut self, _: Option<u32>, _: u32) -> io::Result<()> {
        self.close();
        Ok(())
    }
}

/// Waits no longer than so long; true once the peer has closed or reset the connection, even if
/// what it has sent is still unread.
pub(crate) fn has_left(tcp: &TcpStream, limit: Duration) -> bool {
    let mut fds = [PollFd::new(tcp, PollFlags::RDHUP)];
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    matches!(poll(&mut fds, Some(&limit)), Ok(1..))
}

/// Closes by a reset.
pub(crate) fn reset(tcp: TcpStream) {
    let _ = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
}

/// Closes by FIN, though not all that came was read: for a kernel that would be a reset.
fn drain(mut tcp: &TcpStream) {
    let _ = tcp.shutdown(Shutdown::Write);
    let _ = tcp.set_read_timeout(Some(PATIENCE));
    let end = Instant::now() + PATIENCE;
    let mut piece = [0; 64 << 10];
    while Instant::now() < end && matches!(tcp.read(&mut piece), Ok(1..)) {}
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
