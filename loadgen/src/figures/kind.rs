//! What kind of trouble a call was in: errors told apart by what one would do about them.

use serde::{Deserialize, Serialize};
use tidegate_wire::{ErrorOrigin, Outcome, Record};

/// Why a call did not give what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A limit of the provider's or of a sidecar's: 429, throttling, a quota that is spent.
    Quota,
    /// The server has no room: 503, 529, overloaded.
    Capacity,
    /// It took too long, as we or the server say: 408, 504.
    Timeout,
    /// No connection, or no answer.
    Unreachable,
    /// An answer that broke off.
    Cut,
    /// An answer that is whole and none to what was asked: a page of HTML, nothing at all, a block.
    WrongContent,
    /// Any other fault of the server.
    Server,
    /// The request itself is at fault.
    Request,
    /// It could not be signed, and was not sent.
    Unsigned,
}

// === impl Kind ===

impl Kind {
    /// All kinds, in the order in which reports have them.
    pub const ALL: [Self; 9] = [
        Self::Quota,
        Self::Capacity,
        Self::Timeout,
        Self::Unreachable,
        Self::Cut,
        Self::WrongContent,
        Self::Server,
        Self::Request,
        Self::Unsigned,
    ];

    /// The word for it, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Capacity => "capacity",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Cut => "cut",
            Self::WrongContent => "wrong content",
            Self::Server => "server",
            Self::Request => "request",
            Self::Unsigned => "unsigned",
        }
    }

    /// The kind of trouble that this call was in, if it was; one that we gave up ourselves was not.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        match record.outcome? {
            Outcome::Completed => says_nothing(record).then_some(Self::WrongContent),
            Outcome::Abandoned => None,
            Outcome::Truncated if is_timeout(record) => Some(Self::Timeout),
            Outcome::Truncated => Some(Self::Cut),
            Outcome::Failed | Outcome::Refused => Some(failed(record)),
        }
    }
}

fn failed(record: &Record) -> Kind {
    let words = [&record.error_type, &record.error_code];
    let says = |known: &[&str]| {
        words.into_iter().flatten().any(|word| {
            let word = word.to_ascii_lowercase();
            known.iter().any(|known| word.contains(known))
        })
    };
    let (status, origin) = (record.status.unwrap_or_default(), record.error_origin);
    match origin {
        _ if says(&["credential_"]) => Kind::Unsigned,
        Some(ErrorOrigin::Quota) => Kind::Quota,
        _ if is_timeout(record) => Kind::Timeout,
        _ if record.status.is_none() => Kind::Unreachable,
        Some(ErrorOrigin::Client) => Kind::Request,
        _ if matches!(status, 503 | 529) || says(&["overloaded", "unavailable"]) => Kind::Capacity,
        _ => Kind::Server,
    }
}

fn is_timeout(record: &Record) -> bool {
    let says = record.error_type.as_ref().is_some_and(|kind| {
        let kind = kind.to_ascii_lowercase();
        ["timeout", "deadline"].iter().any(|word| kind.contains(word))
    });
    says || matches!(record.status, Some(408 | 504))
}

/// Whether an answer that came whole has nothing in it that an answer of its operation has.
fn says_nothing(record: &Record) -> bool {
    let says_something = record.usage_source.is_some()
        || record.counted_tokens.is_some()
        || record.token_chunks.is_some()
        || !record.finish_reasons.is_empty()
        || record.response_id.is_some()
        || record.response_model.is_some()
        || record.media.is_some();
    let is_empty = record.response_bytes == Some(0);
    let is_short_of = states_more_than_text(record) || record.not_understood.is_some();
    record.block_reason.is_some() || is_empty || is_short_of && !says_something
}

/// Whether answers of this operation state an id, a model, a reason or usage beside what is said.
/// Servers that speak `/generate` need not.
fn states_more_than_text(record: &Record) -> bool {
    let is_bare = record.path.as_deref().is_some_and(|path| {
        ["/generate", "/generate_stream"].iter().any(|bare| path.ends_with(bare))
    });
    let operation = record.operation.as_deref();
    !is_bare
        && matches!(
            operation,
            Some("chat" | "generate_content" | "text_completion" | "embeddings" | "count_tokens")
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: u16, error_type: &str, origin: ErrorOrigin) -> Record {
        Record {
            outcome: Some(Outcome::Failed),
            status: Some(status).filter(|status| *status > 0),
            error_type: Some(error_type.to_owned()),
            error_origin: Some(origin),
            ..Record::default()
        }
    }

    #[test]
    fn errors_are_told_apart_by_what_one_would_do() {
        use ErrorOrigin::{Client, Quota, Sidecar, Upstream};
        for (record, kind) in [
            (failed(429, "rate_limit_exceeded", Quota), Kind::Quota),
            (failed(400, "ThrottlingException", Quota), Kind::Quota),
            (failed(403, "RESOURCE_EXHAUSTED", Quota), Kind::Quota),
            (failed(503, "503", Upstream), Kind::Capacity),
            (failed(200, "overloaded_error", Upstream), Kind::Capacity),
            (failed(503, "UNAVAILABLE", Upstream), Kind::Capacity),
            (failed(504, "DEADLINE_EXCEEDED", Upstream), Kind::Timeout),
            (failed(0, "timeout", Upstream), Kind::Timeout),
            (failed(0, "connect", Upstream), Kind::Unreachable),
            (failed(0, "no_answer", Upstream), Kind::Unreachable),
            (failed(500, "500", Upstream), Kind::Server),
            (failed(502, "upstream_closed", Sidecar), Kind::Server),
            (failed(400, "invalid_request_error", Client), Kind::Request),
            (failed(0, "credential_unavailable", Sidecar), Kind::Unsigned),
        ] {
            assert_eq!(Kind::of(&record), Some(kind), "{record:?}");
        }
        let cut = Record { outcome: Some(Outcome::Truncated), ..Record::default() };
        assert_eq!(Kind::of(&cut), Some(Kind::Cut));
        let stalled = Record { error_type: Some("timeout".to_owned()), ..cut };
        assert_eq!(Kind::of(&stalled), Some(Kind::Timeout));
        let ours = Record { outcome: Some(Outcome::Abandoned), ..Record::default() };
        assert_eq!(Kind::of(&ours), None);
    }

    #[test]
    fn a_whole_answer_to_something_else_is_wrong_content() {
        let nothing = |operation: &str| Record {
            outcome: Some(Outcome::Completed),
            operation: Some(operation.into()),
            status: Some(200),
            response_bytes: Some(100),
            ..Record::default()
        };
        assert_eq!(Kind::of(&nothing("chat")), Some(Kind::WrongContent));
        let bare = Record { path: Some("/v1/generate".to_owned()), ..nothing("text_completion") };
        assert_eq!(Kind::of(&bare), None, "who speaks it may say no more");
        let empty = Record { response_bytes: Some(0), ..bare.clone() };
        assert_eq!(Kind::of(&empty), Some(Kind::WrongContent));
        let html = Record { not_understood: Some("malformed".into()), ..bare };
        assert_eq!(Kind::of(&html), Some(Kind::WrongContent));
        let answer = Record { finish_reasons: vec!["stop".to_owned()], ..nothing("chat") };
        assert_eq!(Kind::of(&answer), None);
        let blocked = Record { block_reason: Some("SAFETY".to_owned()), ..answer };
        assert_eq!(Kind::of(&blocked), Some(Kind::WrongContent));
        let tokens = Record { token_chunks: Some(1), ..nothing("chat") };
        assert_eq!(Kind::of(&tokens), None);
    }
}
