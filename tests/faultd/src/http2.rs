//! HTTP/2 by hand: a writer of any frame, lawful or not, and a reader of those that a caller sends.
//!
//! Each stream is answered in a thread of its own. What is said keeps to the windows of the other
//! side, unless a script says raw frames.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::PATIENCE;
use crate::answer::{Answer, Reads};
use crate::perform::{Speaker, perform};
use crate::request::Request;
use crate::server::{Shared, spawn};
use crate::step::Fields;
use crate::tally::Ended;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Payload of a frame that every peer takes.
const MAX_FRAME: usize = 16 << 10;
/// Payload of a frame that we take.
const MAX_READ: usize = 1 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame that a script says, lawful or not.
#[derive(Clone, Debug)]
pub struct Frame {
    kind: u8,
    flags: u8,
    is_of_stream: bool,
    payload: Vec<u8>,
}

impl Frame {
    /// A frame on the stream of the call.
    pub fn new(kind: u8, flags: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, is_of_stream: true, payload: payload.into() }
    }

    /// A frame on the connection.
    pub fn on_connection(kind: u8, flags: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { is_of_stream: false, ..Self::new(kind, flags, payload) }
    }

    /// SETTINGS that set nothing, and that must be acknowledged all the same.
    pub fn settings() -> Self {
        Self::on_connection(SETTINGS, 0, [])
    }

    /// PING, which must be answered.
    pub fn ping() -> Self {
        Self::on_connection(PING, 0, *b"faultd!!")
    }

    fn bytes(&self, stream: u32) -> Vec<u8> {
        frame(self.kind, self.flags, if self.is_of_stream { stream } else { 0 }, &self.payload)
    }
}

/// A frame as it stands on the wire (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection, as its streams share it.
struct Line {
    tcp: TcpStream,
    /// Held while a frame is written.
    writing: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
    shared: Arc<Shared>,
}

struct State {
    /// What may be said on the connection, and on a new stream.
    window: i64,
    initial: i64,
    streams: HashMap<u32, i64>,
    /// Whether the peer has left.
    is_gone: bool,
    /// Whether a script has ended the connection.
    is_over: bool,
}

/// A call whose body has not come whole yet.
struct Coming {
    request: Request,
    answer: Answer,
    place: Option<usize>,
    /// Whether it is being answered already.
    is_answered: bool,
}

/// Serves a connection to its end; whether the peer has ended it.
pub(crate) fn serve(tcp: TcpStream, shared: &Arc<Shared>) -> bool {
    let state = State {
        window: 65_535,
        initial: 65_535,
        streams: HashMap::new(),
        is_gone: false,
        is_over: false,
    };
    let line = Arc::new(Line {
        tcp,
        writing: Mutex::default(),
        state: Mutex::new(state),
        changed: Condvar::new(),
        shared: shared.clone(),
    });
    let mut reader =
        Reader { line: line.clone(), decoder: loona_hpack::Decoder::new(), coming: HashMap::new() };
    let _ = reader.read_all();
    for (_, coming) in reader.coming.drain().filter(|(_, coming)| !coming.is_answered) {
        shared.tally.note(|counts| counts.end(coming.place, Ended::Cancelled));
    }
    let mut state = line.lock();
    state.is_gone = true;
    line.changed.notify_all();
    !state.is_over
}

// === impl Line ===

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let whole = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.tcp).write_all(bytes)?;
        drop(whole);
        self.shared.tally.note(|counts| counts.bytes_sent += bytes.len() as u64);
        Ok(())
    }

    /// Ends the connection: the reader wakes, and the last who holds it closes.
    fn over(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
        let _ = self.tcp.shutdown(Shutdown::Read);
    }
}

/// Reads what the peer says.
struct Reader {
    line: Arc<Line>,
    decoder: loona_hpack::Decoder<'static>,
    coming: HashMap<u32, Coming>,
}

impl Reader {
    fn read_all(&mut self) -> io::Result<()> {
        let mut preface = [0; PREFACE.len()];
        (&self.line.tcp).read_exact(&mut preface)?;
        self.greet()?;
        loop {
            let (kind, flags, stream, payload) = self.frame()?;
            match kind {
                DATA => self.data(flags, stream, &payload)?,
                HEADERS => self.headers(flags, stream, payload)?,
                RST_STREAM => self.gone(stream),
                SETTINGS if flags & ACK == 0 => self.settings(&payload)?,
                PING if flags & ACK == 0 => self.line.write(&frame(PING, ACK, 0, &payload))?,
                WINDOW_UPDATE => self.opened(stream, &payload),
                _ => {}
            }
        }
    }

    fn greet(&self) -> io::Result<()> {
        let manners = self.line.shared.manners();
        let mut settings = Vec::new();
        let mut set = |id: u16, value: u32| {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        };
        manners.window.into_iter().for_each(|window| set(INITIAL_WINDOW_SIZE, window));
        manners.streams.into_iter().for_each(|streams| set(MAX_CONCURRENT_STREAMS, streams));
        self.line.write(&frame(SETTINGS, 0, 0, &settings))?;
        for _ in 0..manners.more_settings {
            self.line.write(&frame(SETTINGS, 0, 0, &settings))?;
        }
        Ok(())
    }

    fn frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        (&self.line.tcp).read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > MAX_READ {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        (&self.line.tcp).read_exact(&mut payload)?;
        Ok((kind, flags, u32::from_be_bytes(stream) & 0x7FFF_FFFF, payload))
    }

    fn headers(&mut self, flags: u8, stream: u32, payload: Vec<u8>) -> io::Result<()> {
        let mut block = unpadded(flags, &payload)?.to_vec();
        if flags & PRIORITY != 0 {
            block.drain(..block.len().min(5));
        }
        let mut ended = flags & END_HEADERS != 0;
        while !ended && block.len() <= MAX_READ {
            let (kind, flags, _, more) = self.frame()?;
            if kind != CONTINUATION {
                return Err(io::ErrorKind::InvalidData.into());
            }
            block.extend_from_slice(&more);
            ended = flags & END_HEADERS != 0;
        }
        let fields =
            self.decoder.decode(&block).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if !self.coming.contains_key(&stream) {
            self.call(stream, &fields);
        }
        if flags & END_STREAM != 0 {
            self.ended(stream);
        }
        Ok(())
    }

    /// A call begins.
    fn call(&mut self, stream: u32, fields: &[(Vec<u8>, Vec<u8>)]) {
        let mut request = Request { http2: true, ..Request::default() };
        for (name, value) in fields {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            match name.as_slice() {
                b":method" => request.method = text(value),
                b":path" => request.target = text(value),
                [b':', ..] => {}
                name => request.fields.push((text(name), text(value))),
            }
        }
        let (answer, place) = self.line.shared.admit(&request);
        let mut state = self.line.lock();
        let initial = state.initial;
        state.streams.insert(stream, initial);
        drop(state);
        let is_early = answer.reads == Reads::Head;
        let coming = Coming { request, answer, place, is_answered: is_early };
        if is_early {
            answer_in_thread(&self.line, stream, &coming);
        }
        self.coming.insert(stream, coming);
    }

    fn data(&mut self, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        if let Some(coming) = self.coming.get_mut(&stream) {
            coming.request.keep(unpadded(flags, payload)?);
        }
        if self.line.shared.manners().window.is_none() && !payload.is_empty() {
            let more = (payload.len() as u32).to_be_bytes();
            self.line.write(&frame(WINDOW_UPDATE, 0, 0, &more))?;
            if flags & END_STREAM == 0 {
                self.line.write(&frame(WINDOW_UPDATE, 0, stream, &more))?;
            }
        }
        if flags & END_STREAM != 0 {
            self.ended(stream);
        }
        Ok(())
    }

    /// A request has come whole.
    fn ended(&mut self, stream: u32) {
        let Some(coming) = self.coming.remove(&stream) else { return };
        self.line.shared.came(coming.place, &coming.request);
        if !coming.is_answered {
            answer_in_thread(&self.line, stream, &coming);
        }
    }

    /// The peer has given a stream up.
    fn gone(&mut self, stream: u32) {
        if let Some(coming) = self.coming.remove(&stream).filter(|coming| !coming.is_answered) {
            self.line.shared.tally.note(|counts| counts.end(coming.place, Ended::Cancelled));
        }
        self.line.lock().streams.remove(&stream);
        self.line.changed.notify_all();
    }

    fn settings(&self, payload: &[u8]) -> io::Result<()> {
        let mut state = self.line.lock();
        for setting in payload.chunks_exact(6) {
            let value =
                i64::from(u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
            if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                let more = value - state.initial;
                state.initial = value;
                state.streams.values_mut().for_each(|window| *window += more);
            }
        }
        drop(state);
        self.line.changed.notify_all();
        self.line.write(&frame(SETTINGS, ACK, 0, b""))
    }

    fn opened(&self, stream: u32, payload: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(payload) else { return };
        let more = i64::from(u32::from_be_bytes(bytes));
        let mut state = self.line.lock();
        match stream {
            0 => state.window += more,
            _ => {
                if let Some(window) = state.streams.get_mut(&stream) {
                    *window += more;
                }
            }
        }
        drop(state);
        self.line.changed.notify_all();
    }
}

fn unpadded(flags: u8, payload: &[u8]) -> io::Result<&[u8]> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let inside = payload
        .split_first()
        .and_then(|(padding, rest)| rest.get(..rest.len().checked_sub(usize::from(*padding))?));
    inside.ok_or(io::ErrorKind::InvalidData.into())
}

fn answer_in_thread(line: &Arc<Line>, id: u32, coming: &Coming) {
    let steps = coming.answer.steps(&coming.request);
    let (line, place) = (line.clone(), coming.place);
    spawn(move || {
        let tally = &line.shared.tally;
        let ended = perform(&steps, &mut Stream { line: line.clone(), id }, tally, place);
        tally.note(|counts| counts.end(place, ended));
        line.lock().streams.remove(&id);
    });
}

/// One stream, as its answer is said on it.
struct Stream {
    line: Arc<Line>,
    id: u32,
}

impl Stream {
    /// Waits until so many bytes, or fewer, may be said; how many.
    fn allowance(&self, wanted: usize) -> io::Result<usize> {
        let waits = |state: &mut State| {
            let is_here = !state.is_gone && !state.is_over;
            is_here
                && state.streams.get(&self.id).is_some_and(|window| state.window.min(*window) <= 0)
        };
        let waited = self.line.changed.wait_timeout_while(self.line.lock(), PATIENCE * 30, waits);
        let (mut state, _) = waited.map_err(|_| io::ErrorKind::Other)?;
        let state = &mut *state;
        let window = match state.streams.get_mut(&self.id) {
            Some(window) if !state.is_gone => window,
            _ => return Err(io::ErrorKind::NotConnected.into()),
        };
        let n = state.window.min(*window).clamp(0, wanted as i64);
        state.window -= n;
        *window -= n;
        Ok(n as usize)
    }
}

impl Speaker for Stream {
    fn head(&mut self, status: u16, fields: &Fields, _: Option<Duration>) -> io::Result<()> {
        let mut block = Vec::new();
        literal(&mut block, ":status", &status.to_string());
        for (name, value) in fields {
            let name = name.to_ascii_lowercase();
            if name != "transfer-encoding" && name != "connection" {
                literal(&mut block, &name, value);
            }
        }
        self.line.write(&frame(HEADERS, END_HEADERS, self.id, &block))
    }

    fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut left = piece;
        while !left.is_empty() {
            let n = self.allowance(left.len().min(MAX_FRAME))?;
            let (now, later) = left.split_at(n);
            self.line.write(&frame(DATA, 0, self.id, now))?;
            left = later;
        }
        Ok(())
    }

    fn half_data(&mut self, piece: &[u8]) -> io::Result<()> {
        self.data(&piece[..piece.len() / 2])
    }

    fn end(&mut self) -> io::Result<()> {
        self.line.write(&frame(DATA, END_STREAM, self.id, b""))
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line.write(bytes)
    }

    fn frames(&mut self, frames: &[Frame]) -> io::Result<()> {
        frames.iter().try_for_each(|frame| self.line.write(&frame.bytes(self.id)))
    }

    fn peer_left_within(&mut self, limit: Duration) -> bool {
        let is_here = |state: &mut State| {
            !state.is_gone && !state.is_over && state.streams.contains_key(&self.id)
        };
        let waited = self.line.changed.wait_timeout_while(self.line.lock(), limit, is_here);
        waited.is_ok_and(|(_, late)| !late.timed_out())
    }

    fn half_close(&mut self) {
        let _ = self.line.tcp.shutdown(Shutdown::Write);
    }

    fn close(&mut self) {
        self.half_close();
        self.line.over();
    }

    fn reset(&mut self) {
        let _ = socket2::SockRef::from(&self.line.tcp).set_linger(Some(Duration::ZERO));
        self.line.over();
    }

    fn reset_stream(&mut self, code: u32) -> io::Result<()> {
        self.line.write(&frame(RST_STREAM, 0, self.id, &code.to_be_bytes()))
    }

    fn go_away(&mut self, last: Option<u32>, code: u32) -> io::Result<()> {
        let last = last.unwrap_or(self.id);
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.line.write(&frame(GOAWAY, 0, 0, &payload))
    }
}

/// A field that is written out, and goes into no table (RFC 7541, section 6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        length(block, text.len());
        block.extend_from_slice(text.as_bytes());
    }
}

/// A number of seven bits, or more in the bytes behind them (section 5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    const FULL: usize = 127;
    if length < FULL {
        return block.push(length as u8);
    }
    block.push(FULL as u8);
    let mut left = length - FULL;
    while left >= 128 {
        block.push((left % 128 + 128) as u8);
        left /= 128;
    }
    block.push(left as u8);
}
