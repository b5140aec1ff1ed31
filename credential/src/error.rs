//! Why a call got no credential.

/// Why a call got no credential. No message holds a secret: what a source says of its failure is
/// told by kind and place alone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names something that is not there.
    #[error("{0}")]
    Config(String),
    /// No credential could be had so far, or the last one has expired.
    #[error("no credential from {from}: {reason}")]
    Unavailable {
        /// The source.
        from: &'static str,
        /// What it said last.
        reason: String,
    },
    /// The source did not answer in time.
    #[error("no credential from {from} within {limit_s} s")]
    Late {
        /// The source.
        from: &'static str,
        /// How long was waited.
        limit_s: u64,
    },
    /// The request cannot be signed.
    #[error("the request cannot be signed: {0}")]
    Unsignable(String),
}

impl Error {
    /// The `error.type` of records and metrics: one of few fixed words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) | Self::Unavailable { .. } => "credential_unavailable",
            Self::Late { .. } => "credential_timeout",
            Self::Unsignable(_) => "credential_unsignable",
        }
    }

    /// What a caller may know of it. What a source said stays in our own log: who calls is not
    /// who configures, and a token service may say more than it should.
    pub fn for_caller(&self) -> String {
        match self {
            Self::Unavailable { from, .. } => format!("none could be had from {from}"),
            Self::Config(_) | Self::Late { .. } | Self::Unsignable(_) => self.to_string(),
        }
    }
}
