//! What can be wrong with a store.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a store gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Not within the deadline.
    Timeout,
    /// It cannot be reached, or closed the connection.
    Connection,
    /// It has no certificate that is trusted.
    Tls,
    /// It does not know us, or does not let us do that.
    Denied,
    /// It is still reading what it had kept.
    Loading,
    /// It is a replica.
    ReadOnly,
    /// It has no memory left.
    Full,
    /// Whatever else it says.
    Other,
}

impl Trouble {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Timeout,
        Self::Connection,
        Self::Tls,
        Self::Denied,
        Self::Loading,
        Self::ReadOnly,
        Self::Full,
        Self::Other,
    ];

    /// The word of metrics and of the admin address.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::Denied => "denied",
            Self::Loading => "loading",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::Other => "other",
        }
    }

    /// Whether to ask for anything else is in vain, too. What refuses to be written to may be read.
    pub(super) fn is_of_all(self) -> bool {
        matches!(self, Self::Timeout | Self::Connection | Self::Tls | Self::Denied | Self::Loading)
    }
}

impl From<&RedisError> for Trouble {
    fn from(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) => Self::Denied,
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Self::Denied,
            (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => Self::Loading,
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => Self::ReadOnly,
            (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Self::Denied,
            (_, Some("OOM")) => Self::Full,
            (_, Some("MISCONF" | "READONLY")) => Self::ReadOnly,
            _ if error.is_timeout() => Self::Timeout,
            _ if error.is_io_error() || error.is_connection_dropped() => Self::Connection,
            _ => Self::Other,
        }
    }
}
