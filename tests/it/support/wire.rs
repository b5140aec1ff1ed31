//! One TCP connection, read and written by hand: it can say what no library would.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::STOP;

/// A connection and what was read of it ahead.
#[derive(Debug)]
pub(crate) struct Wire {
    tcp: TcpStream,
    ahead: Vec<u8>,
    /// How the peer ended, once it has.
    end: End,
}

/// A message as it stood on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// Request or status line.
    pub(crate) line: String,
    /// Names and values as they came.
    pub(crate) headers: Vec<(String, String)>,
    /// The payload, without its framing.
    pub(crate) body: Vec<u8>,
    /// The trailer section as it came.
    pub(crate) trailers: String,
    /// How the body ended.
    pub(crate) end: End,
}

/// How what was read ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// As its framing said.
    #[default]
    Clean,
    /// By closing, before its framing said so.
    Closed,
    /// By a reset.
    Reset,
}

// === impl Wire ===

impl Wire {
    /// Connects.
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&address, STOP).expect("somebody listens"))
    }

    /// Takes a connection over.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        tcp.set_read_timeout(Some(STOP)).expect("a limit that is not zero");
        tcp.set_write_timeout(Some(STOP)).expect("a limit that is not zero");
        tcp.set_nodelay(true).expect("a socket");
        Self { tcp, ahead: Vec::new(), end: End::Clean }
    }

    /// The same connection, for a second thread: one reads, the other writes.
    pub(crate) fn same(&self) -> Self {
        Self::new(self.tcp.try_clone().expect("a descriptor is left"))
    }

    /// Sends all of it.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes it");
    }

    /// Sends all of it, if the peer lets us.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.tcp.write_all(bytes.as_ref())
    }

    /// Sends until the peer has taken nothing for so long; how many bytes it took.
    pub(crate) fn send_until_stuck(&mut self, patience: Duration, most: usize) -> usize {
        self.tcp.set_write_timeout(Some(patience)).expect("a limit that is not zero");
        let piece = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        while sent < most {
            match self.tcp.write(&piece[..piece.len().min(most - sent)]) {
                Ok(n) => sent += n,
                Err(error) if is_timeout(&error) => break,
                Err(error) => panic!("the peer left: {error}"),
            }
        }
        self.tcp.set_write_timeout(Some(STOP)).expect("a limit that is not zero");
        sent
    }

    /// Sends a request and reads its answer.
    pub(crate) fn call(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request);
        self.response()
    }

    /// Reads a whole response.
    pub(crate) fn response(&mut self) -> Message {
        self.response_to("POST")
    }

    /// Reads a whole response to a request of this method.
    pub(crate) fn response_to(&mut self, method: &str) -> Message {
        let mut message = self.head().expect("a response head");
        let bodiless = method == "HEAD" || matches!(message.status(), 100..200 | 204 | 304);
        if bodiless {
            return message;
        }
        let is_framed =
            message.header("content-length").or(message.header("transfer-encoding")).is_some();
        match is_framed {
            true => self.body(&mut message),
            false => (message.body, message.end) = self.rest(),
        }
        message
    }

    /// Reads a whole request; nothing where the peer has closed.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let mut message = self.head()?;
        self.body(&mut message);
        Some(message)
    }

    /// Reads a head; nothing where the peer has closed before it.
    pub(crate) fn head(&mut self) -> Option<Message> {
        let text = String::from_utf8(self.through(b"\r\n\r\n")?).expect("a head of UTF-8");
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").or(line.split_once(':')).expect("a field");
            (name.to_owned(), value.to_owned())
        });
        Some(Message { line, headers: headers.collect(), ..Message::default() })
    }

    /// Reads the body that belongs to this head.
    pub(crate) fn body(&mut self, message: &mut Message) {
        if message.header("transfer-encoding") == Some("chunked") {
            return self.chunks(message);
        }
        let length =
            message.header("content-length").map_or(0, |text| text.parse().expect("digits"));
        message.end = self.take(length, &mut message.body);
    }

    fn chunks(&mut self, message: &mut Message) {
        loop {
            let Some(line) = self.through(b"\r\n") else { return message.end = self.end };
            let digits = String::from_utf8_lossy(&line);
            let digits = digits.trim_end().split(';').next().unwrap_or_default();
            let length = usize::from_str_radix(digits, 16).expect("a chunk size");
            if length == 0 {
                break;
            }
            message.end = self.take(length, &mut message.body);
            if message.end != End::Clean {
                return;
            }
            match self.through(b"\r\n") {
                Some(end) => assert_eq!(end, b"\r\n", "a chunk ends with its size"),
                None => return message.end = self.end,
            }
        }
        loop {
            match self.through(b"\r\n") {
                Some(line) if line == b"\r\n" => return,
                Some(line) => message.trailers.push_str(&String::from_utf8_lossy(&line)),
                None => return message.end = self.end,
            }
        }
    }

    fn take(&mut self, length: usize, into: &mut Vec<u8>) -> End {
        let mut left = length;
        loop {
            let n = left.min(self.ahead.len());
            into.extend(self.ahead.drain(..n));
            left -= n;
            if left == 0 {
                return End::Clean;
            }
            if !self.fill() {
                return self.end;
            }
        }
    }

    /// Reads until these bytes have come, and gives all up to their end.
    pub(crate) fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut looked_at = 0;
        loop {
            let from = looked_at.min(self.ahead.len());
            let found = self.ahead[from..].windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return Some(self.ahead.drain(..from + at + end.len()).collect());
            }
            looked_at = self.ahead.len().saturating_sub(end.len() - 1);
            if !self.fill() {
                return None;
            }
        }
    }

    /// Waits until these bytes have come, and leaves them to be read.
    pub(crate) fn wait_for(&mut self, bytes: &[u8]) {
        while !self.ahead.windows(bytes.len()).any(|window| window == bytes) {
            assert!(self.fill(), "the peer ends before {:?}", String::from_utf8_lossy(bytes));
        }
    }

    /// Reads all that comes, and how it ends.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        while self.fill() {}
        let end = match self.end {
            End::Closed => End::Clean,
            end => end,
        };
        (std::mem::take(&mut self.ahead), end)
    }

    /// Reads so many bytes and forgets them; how many there were.
    pub(crate) fn skip(&mut self, most: usize) -> usize {
        let mut skipped = 0;
        loop {
            skipped += self.ahead.len();
            self.ahead.clear();
            if skipped >= most || !self.fill() {
                return skipped;
            }
        }
    }

    /// Waits until the peer has closed; what it says before is not of interest.
    pub(crate) fn wait_closed(&mut self) -> End {
        self.rest().1
    }

    /// Says that nothing more comes, and goes on reading.
    pub(crate) fn finish_writing(&self) {
        self.tcp.shutdown(Shutdown::Write).expect("still connected");
    }

    /// Closes by a reset, which an upstream that crashes leaves to its kernel.
    pub(crate) fn reset(self) {
        let now = Some(Duration::ZERO);
        socket2::SockRef::from(&self.tcp).set_linger(now).expect("a socket lingers as told");
    }

    /// Reads more; false at the end, however it came.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        match self.tcp.read(&mut piece) {
            Ok(0) => {
                self.end = End::Closed;
                false
            }
            Ok(n) => {
                self.ahead.extend_from_slice(&piece[..n]);
                true
            }
            Err(error) if is_timeout(&error) => panic!(
                "nothing came for {STOP:?}; before that: {:?}",
                String::from_utf8_lossy(&self.ahead)
            ),
            Err(_) => {
                self.end = End::Reset;
                false
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

// === impl Message ===

impl Message {
    /// The first value of this field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let is_it = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers.iter().find(is_it).map(|(_, value)| value.as_str())
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status line")
    }

    /// The target of a request.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).expect("a request line")
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}
