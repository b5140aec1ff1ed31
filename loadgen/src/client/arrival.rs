//! A TCP stream that knows when what is read of it arrived.
//!
//! The kernel stamps what comes in (`SO_TIMESTAMPNS`, socket(7)). By that, a generator that has many
//! calls to look after does not take its own delay for the target's; and it knows its own delay.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// When the bytes arrived that were read last: shared by the stream and by who reads through others.
#[derive(Debug)]
pub(crate) struct Arrivals {
    opened: Instant,
    latest_ns: AtomicU64,
    /// The longest that anything lay unread since the last request.
    longest_unread_ns: AtomicU64,
}

/// The stream.
#[derive(Debug)]
pub(crate) struct Stamped {
    tcp: TcpStream,
    arrivals: Arc<Arrivals>,
    #[cfg(target_os = "linux")]
    stamps: linux::Stamps,
}

// === impl Arrivals ===

impl Arrivals {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { opened: Instant::now(), latest_ns: zero(), longest_unread_ns: zero() }
    }

    /// When the bytes arrived that were read last.
    pub(crate) fn latest(&self) -> Instant {
        self.opened + Duration::from_nanos(self.latest_ns.load(Relaxed))
    }

    /// The longest that anything lay unread since this was last asked; nothing where no kernel tells.
    pub(crate) fn longest_unread(&self) -> Option<Duration> {
        let longest = Duration::from_nanos(self.longest_unread_ns.swap(0, Relaxed));
        cfg!(target_os = "linux").then_some(longest)
    }

    /// Bytes were read that had been there for so long. They cannot have come before those that were
    /// read before, nor before what they answer was written, even where a clock was set meanwhile.
    fn read(&self, age: Duration) {
        let now = self.opened.elapsed();
        let arrived =
            now.saturating_sub(age).max(Duration::from_nanos(self.latest_ns.load(Relaxed)));
        self.latest_ns.store(arrived.as_nanos() as u64, Relaxed);
        self.longest_unread_ns.fetch_max(now.saturating_sub(arrived).as_nanos() as u64, Relaxed);
    }

    fn written(&self) {
        self.latest_ns.store(self.opened.elapsed().as_nanos() as u64, Relaxed);
    }
}

// === impl Stamped ===

impl Stamped {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            arrivals: Arc::new(Arrivals::new()),
            #[cfg(target_os = "linux")]
            stamps: linux::Stamps::of(&tcp),
            tcp,
        }
    }

    pub(crate) fn arrivals(&self) -> Arc<Arrivals> {
        self.arrivals.clone()
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        #[cfg(target_os = "linux")]
        let read = this.stamps.poll_read(&this.tcp, context, buffer);
        #[cfg(not(target_os = "linux"))]
        let read = Pin::new(&mut this.tcp).poll_read(context, buffer).map_ok(|()| Duration::ZERO);
        read.map_ok(|age| this.arrivals.read(age))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.arrivals.written();
        Pin::new(&mut this.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.arrivals.written();
        Pin::new(&mut this.tcp).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::RefCell;
    use std::io::{self, ErrorKind, IoSliceMut};
    use std::os::fd::AsRawFd;
    use std::task::{Context, Poll, ready};
    use std::time::{Duration, SystemTime};

    use nix::cmsg_space;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
    use nix::sys::time::TimeSpec;
    use tokio::io::{Interest, ReadBuf};
    use tokio::net::TcpStream;

    thread_local! {
        /// Where the kernel writes what came: a reader's buffer, large and new, would first have to be filled
        /// with zeros for each token.
        static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 << 10]);
    }

    /// Where the kernel writes its stamps to.
    #[derive(Debug)]
    pub(super) struct Stamps(Vec<u8>);

    impl Stamps {
        /// Asks for stamps. A kernel that has none is no hindrance: what is read is as old as the read. So it is
        /// for a moment after the first socket of a machine has asked, for the kernel then begins to stamp.
        pub(super) fn of(tcp: &TcpStream) -> Self {
            let _ = setsockopt(tcp, sockopt::ReceiveTimestampns, &true);
            Self(cmsg_space!(TimeSpec))
        }

        /// Reads, and tells how long ago the last of what was read came.
        pub(super) fn poll_read(
            &mut self,
            tcp: &TcpStream,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<Duration>> {
            loop {
                ready!(tcp.poll_read_ready(context))?;
                let tried = SCRATCH.with_borrow_mut(|scratch| {
                    let room = buffer.remaining().min(scratch.len());
                    self.try_read(tcp, &mut scratch[..room], buffer)
                });
                match tried {
                    Ok(age) => return Poll::Ready(Ok(age)),
                    Err(error) if error.kind() != ErrorKind::WouldBlock => {
                        return Poll::Ready(Err(error));
                    }
                    Err(_) => {}
                }
            }
        }

        fn try_read(
            &mut self,
            tcp: &TcpStream,
            scratch: &mut [u8],
            buffer: &mut ReadBuf<'_>,
        ) -> io::Result<Duration> {
            let room = scratch.len();
            let mut read = None;
            let tried = tcp.try_io(Interest::READABLE, || {
                let (count, age) = self.receive(tcp, scratch)?;
                read = Some((count, age));
                // Less than there was room for: no more is there, and nobody need ask again before
                // the kernel tells of more.
                if (1..room).contains(&count) {
                    return Err(ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match read {
                Some((count, age)) => {
                    buffer.put_slice(&scratch[..count]);
                    Ok(age)
                }
                None => Err(tried.err().unwrap_or_else(|| ErrorKind::WouldBlock.into())),
            }
        }

        fn receive(&mut self, tcp: &TcpStream, into: &mut [u8]) -> io::Result<(usize, Duration)> {
            let mut parts = [IoSliceMut::new(into)];
            let descriptor = tcp.as_raw_fd();
            let message =
                recvmsg::<()>(descriptor, &mut parts, Some(&mut self.0), MsgFlags::empty())?;
            let stamp = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                _ => None,
            });
            let age = stamp.and_then(|stamp| {
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + stamp).ok()
            });
            Ok((message.bytes, age.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Stamped, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let ours = TcpStream::connect(address).await.expect("it listens");
        let (theirs, _) = listener.accept().await.expect("somebody came");
        (Stamped::new(ours), theirs)
    }

    /// Returns when the kernel stamps what comes, which it begins to do when the first socket asks.
    async fn stamping(ours: &mut Stamped, theirs: &mut TcpStream) {
        let arrivals = ours.arrivals();
        let stop = Instant::now() + Duration::from_secs(30);
        while cfg!(target_os = "linux") && Instant::now() < stop {
            theirs.write_all(b"?").await.expect("it is open");
            tokio::time::sleep(Duration::from_millis(5)).await;
            ours.read_u8().await.expect("it was written");
            if arrivals.longest_unread() > Some(Duration::from_millis(1)) {
                return;
            }
        }
    }

    #[tokio::test]
    async fn bytes_are_as_old_as_they_are_whenever_they_are_read() {
        let (mut ours, mut theirs) = pair().await;
        stamping(&mut ours, &mut theirs).await;
        let arrivals = ours.arrivals();
        let mut bytes = [0; 8];
        for _ in 0..3 {
            let before = Instant::now();
            theirs.write_all(b"a token!").await.expect("it is open");
            let after = Instant::now();
            tokio::time::sleep(Duration::from_millis(30)).await;
            ours.read_exact(&mut bytes).await.expect("it was written");
            let arrived = arrivals.latest();
            assert!(before <= arrived, "before it was sent");
            if cfg!(target_os = "linux") {
                // The stamp is of another clock, which may be corrected meanwhile.
                assert!(arrived <= after + Duration::from_millis(10), "{:?}", arrived - after);
                let unread = arrivals.longest_unread().expect("this kernel tells");
                assert!(unread >= Duration::from_millis(20), "{unread:?}");
                assert_eq!(arrivals.longest_unread(), Some(Duration::ZERO), "it was told");
            }
        }
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_read_whole_and_so_is_the_end() {
        let (mut ours, mut theirs) = pair().await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let writes = tokio::spawn(async move {
            for part in sent.chunks(70_001) {
                theirs.write_all(part).await.expect("it is read");
                tokio::task::yield_now().await;
            }
        });
        let mut read = Vec::new();
        ours.read_to_end(&mut read).await.expect("it ends");
        assert!(read == expected, "{} bytes", read.len());
        writes.await.expect("all is written");
    }

    #[tokio::test]
    async fn nothing_came_before_what_it_answers() {
        let (mut ours, mut theirs) = pair().await;
        let arrivals = ours.arrivals();
        let asked = Instant::now();
        ours.write_all(b"?").await.expect("it is open");
        assert!(arrivals.latest() >= asked);
        theirs.write_all(b"!").await.expect("it is open");
        // A clock that was set makes the age of what is read absurd.
        arrivals.read(Duration::from_secs(3600));
        assert!(arrivals.latest() >= asked && arrivals.latest() <= Instant::now());
    }
}
