//! A byte stream that one task reads and writes, with what was read ahead.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of the buffer that all connections of a thread read through.
const SCRATCH: usize = 64 * 1024;
/// Bytes that a peer may send before we ask for them.
const MAX_AHEAD: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends the thread's read buffer; a connection that waits holds none.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
    let result = work(&mut buffer);
    BUFFER.set(Some(buffer));
    result
}

/// What carries the bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP in the clear.
    Tcp(TcpStream),
    /// TLS over TCP, at either end of it.
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

/// One connection. Its methods take `&self`, for both directions are in use at a time.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Taken when we close before all are gone who hold on to this.
    stream: RefCell<Option<Stream>>,
    ahead: RefCell<Ahead>,
    /// Its place among all connections, where those are counted.
    permit: RefCell<Option<OwnedSemaphorePermit>>,
    /// Whether it is to close in a way that nobody takes for an end in order.
    resets: Cell<bool>,
}

/// Bytes that were read but not yet used.
#[derive(Debug, Default)]
struct Ahead {
    bytes: Vec<u8>,
    used: usize,
}

impl Conn {
    /// A connection with nothing read yet.
    pub(crate) fn new(stream: Stream) -> Self {
        let (stream, ahead) = (RefCell::new(Some(stream)), RefCell::default());
        Self { stream, ahead, permit: RefCell::default(), resets: Cell::new(false) }
    }

    /// The same, which gives this back when it closes.
    pub(crate) fn with_permit(self, permit: OwnedSemaphorePermit) -> Self {
        Self { permit: RefCell::new(Some(permit)), ..self }
    }

    /// Closes, whoever still holds on to this.
    pub(crate) fn close(&self) {
        self.stream.take();
        self.permit.take();
    }

    /// Reads what was read ahead, else from the stream; 0 is the end.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.ahead.borrow_mut().take(buf) {
            0 => self.poll_stream(cx, buf),
            n => Poll::Ready(Ok(n)),
        }
    }

    /// Puts bytes back, in front of what was read ahead.
    pub(crate) fn unread(&self, bytes: &[u8]) {
        self.ahead.borrow_mut().put_back(bytes);
    }

    /// Looks at what was read ahead.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.ahead.borrow().rest())
    }

    /// Takes so many bytes from what was read ahead.
    pub(crate) fn consume(&self, n: usize) {
        self.ahead.borrow_mut().consume(n);
    }

    /// Takes so many bytes out of what was read ahead.
    pub(crate) fn take(&self, n: usize) -> Bytes {
        self.ahead.borrow_mut().split_off(n)
    }

    /// Reads more into what was read ahead; 0 is the end.
    pub(crate) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let n = ready!(self.poll_stream(cx, scratch))?;
            self.ahead.borrow_mut().append(&scratch[..n]);
            Poll::Ready(Ok(n))
        })
    }

    /// Writes some of the bytes.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self.stream.borrow_mut() {
            None => Poll::Ready(Err(closed())),
            Some(Stream::Tcp(tcp)) => Pin::new(tcp).poll_write(cx, bytes),
            Some(Stream::Tls(tls)) => {
                let written = ready!(Pin::new(&mut *tls).poll_write(cx, bytes))?;
                // What rustls holds back goes out as soon as the socket takes it.
                let _ = Pin::new(tls).poll_flush(cx)?;
                Poll::Ready(Ok(written))
            }
        }
    }

    /// Sends on what a TLS session holds back.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.stream.borrow_mut() {
            None | Some(Stream::Tcp(_)) => Poll::Ready(Ok(())),
            Some(Stream::Tls(tls)) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Resolves when the peer has closed, while we expect nothing of it. What it sends early is kept.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ahead.borrow().rest().len() < MAX_AHEAD {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Whether an idle connection can no longer be used: closed, or with bytes nobody asked for.
    ///
    /// The socket itself is asked: what the driver has seen is late, and a call that is sent to a
    /// server which has closed is lost.
    pub(crate) fn is_stale(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let (peeked, is_tls) = match &*self.stream.borrow() {
            None => return true,
            Some(Stream::Tcp(tcp)) => (socket2::SockRef::from(tcp).peek(&mut byte), false),
            Some(Stream::Tls(tls)) => {
                (socket2::SockRef::from(tls.get_ref().0).peek(&mut byte), true)
            }
        };
        let is_open = match peeked {
            // TLS has bytes of its own, such as session tickets.
            Ok(n) => n > 0 && is_tls,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        !is_open || !self.ahead.borrow().rest().is_empty()
    }

    /// Whether closing the connection is to reset it, so that nobody takes what was sent for the
    /// whole, whatever makes it close.
    pub(crate) fn reset_on_close(&self, reset: bool) {
        self.resets.set(reset);
        let linger = reset.then_some(std::time::Duration::ZERO);
        let socket = match &*self.stream.borrow() {
            None => return,
            Some(Stream::Tcp(tcp)) => socket2::SockRef::from(tcp).set_linger(linger),
            Some(Stream::Tls(tls)) => socket2::SockRef::from(tls.get_ref().0).set_linger(linger),
        };
        // A connection that is gone already needs no reset.
        let _ = socket;
    }

    /// Whether the peer must be told of an end in order: by TLS it takes one that it was not told
    /// of for a break.
    pub(crate) fn says_goodbye(&self) -> bool {
        !self.resets.get() && matches!(&*self.stream.borrow(), Some(Stream::Tls(_)))
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.stream.borrow_mut() {
            None => Poll::Ready(Ok(())),
            Some(Stream::Tcp(tcp)) => Pin::new(tcp).poll_shutdown(cx),
            Some(Stream::Tls(tls)) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_stream(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        match &mut *self.stream.borrow_mut() {
            None => return Poll::Ready(Err(closed())),
            Some(Stream::Tcp(tcp)) => ready!(Pin::new(tcp).poll_read(cx, &mut buf))?,
            Some(Stream::Tls(tls)) => ready!(Pin::new(tls).poll_read(cx, &mut buf))?,
        }
        Poll::Ready(Ok(buf.filled().len()))
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

// === impl Ahead ===

impl Ahead {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let n = self.rest().len().min(buf.len());
        buf[..n].copy_from_slice(&self.rest()[..n]);
        self.consume(n);
        n
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
        if self.used == self.bytes.len() {
            // An idle connection holds no buffer.
            *self = Self::default();
        }
    }

    /// The same, without a copy where nothing follows them.
    fn split_off(&mut self, n: usize) -> Bytes {
        if n < self.rest().len() {
            let taken = Bytes::copy_from_slice(&self.rest()[..n]);
            self.consume(n);
            return taken;
        }
        let Self { bytes, used } = std::mem::take(self);
        Bytes::from(bytes).slice(used..)
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn put_back(&mut self, bytes: &[u8]) {
        if self.used >= bytes.len() {
            self.used -= bytes.len();
            self.bytes[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        } else {
            self.bytes.splice(..self.used, bytes.iter().copied());
            self.used = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_leaves_what_follows() {
        let mut ahead = Ahead::default();
        ahead.append(b"abcdefg");
        ahead.consume(2);
        assert_eq!(ahead.split_off(3), "cde");
        assert_eq!(ahead.rest(), b"fg");
        assert_eq!(ahead.split_off(2), "fg");
        assert_eq!(ahead.rest(), b"");
    }

    #[test]
    fn bytes_put_back_are_read_again_first() {
        let mut ahead = Ahead::default();
        ahead.append(b"abcdef");
        let mut buf = [0; 4];
        assert_eq!(ahead.take(&mut buf), 4);
        ahead.put_back(b"cd");
        assert_eq!(ahead.rest(), b"cdef");
        ahead.put_back(b"123");
        assert_eq!(ahead.rest(), b"123cdef");
        ahead.consume(7);
        assert_eq!(ahead.rest(), b"");
        ahead.put_back(b"x");
        assert_eq!(ahead.rest(), b"x");
    }
}
