//! Attempts that got no connection to their upstream: why, and how often.
//!
//! Of all that fails this is what happened on our side of the wire: nothing was sent.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreached {
    /// Nobody listens there.
    Refused,
    /// It took too long.
    Timeout,
    /// There is no way there.
    Unreachable,
    /// It was taken, and closed before anything was said.
    Reset,
    /// The name has no address.
    Dns,
    /// There is no TLS that we trust.
    Tls,
    /// HTTP/2 is needed, and not spoken.
    NoHttp2,
    /// Anything else: descriptors are out, say.
    Other,
}

const WORDS: [(Unreached, &str); 8] = [
    (Unreached::Refused, "refused"),
    (Unreached::Timeout, "timeout"),
    (Unreached::Unreachable, "unreachable"),
    (Unreached::Reset, "reset"),
    (Unreached::Dns, "dns"),
    (Unreached::Tls, "tls"),
    (Unreached::NoHttp2, "no_http2"),
    (Unreached::Other, "other"),
];

/// The attempts of one upstream that got no connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectFailures([AtomicU64; WORDS.len()]);

impl Unreached {
    /// What the system says of a connection that did not come about.
    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind::*;
        match error.kind() {
            ConnectionRefused => Self::Refused,
            TimedOut => Self::Timeout,
            HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
                Self::Unreachable
            }
            ConnectionReset | ConnectionAborted | BrokenPipe => Self::Reset,
            _ => Self::Other,
        }
    }
}

impl ConnectFailures {
    pub(super) fn add(&self, why: Unreached) {
        self.0[why as usize].fetch_add(1, Relaxed);
    }

    /// By the reason's word.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        WORDS.iter().map(|&(why, word)| (word, self.0[why as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_under_its_word() {
        let failures = ConnectFailures::default();
        for (at, (why, _)) in WORDS.into_iter().enumerate() {
            (0..=at).for_each(|_| failures.add(why));
        }
        let counted: Vec<_> = failures.all().collect();
        let expected: Vec<_> = WORDS.iter().zip(1..).map(|(&(_, word), n)| (word, n)).collect();
        assert_eq!(counted, expected);
    }

    #[test]
    fn what_the_system_says_has_a_reason() {
        // ENETUNREACH, EHOSTUNREACH, ECONNREFUSED, ETIMEDOUT, ECONNRESET, EMFILE on Linux.
        for (code, why) in [
            (101, Unreached::Unreachable),
            (113, Unreached::Unreachable),
            (111, Unreached::Refused),
            (110, Unreached::Timeout),
            (104, Unreached::Reset),
            (24, Unreached::Other),
        ] {
            assert_eq!(Unreached::of(&io::Error::from_raw_os_error(code)), why, "{code}");
        }
    }
}
