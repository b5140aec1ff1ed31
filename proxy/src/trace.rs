//! The trace that a call belongs to, as its caller says (W3C Trace Context).

use tidegate_wire::{Id, SpanId, TraceId};

use crate::head::Fields;

/// Where in a trace a call stands.
pub(crate) struct Context {
    pub(crate) trace_id: TraceId,
    /// The caller's span, where it names one.
    pub(crate) parent_span_id: Option<SpanId>,
    /// Whether the caller's trace is sampled.
    pub(crate) is_sampled: Option<bool>,
    /// Whether it is the trace of a load test.
    pub(crate) is_load_test: bool,
}

/// What our load generator says in `tracestate`.
const LOAD_TEST: &[u8] = b"tidegate=load";

/// The caller's trace and span, else a trace of our own.
pub(crate) fn context(fields: &Fields) -> Context {
    let parent = fields.get("traceparent").and_then(parse_traceparent);
    match parent {
        Some((trace_id, span, is_sampled)) => {
            let is_load_test = fields.get("tracestate").is_some_and(has_load_test);
            let (parent_span_id, is_sampled) = (Some(span), Some(is_sampled));
            Context { trace_id, parent_span_id, is_sampled, is_load_test }
        }
        None => Context {
            trace_id: Id(rand::random()),
            parent_span_id: None,
            is_sampled: None,
            is_load_test: false,
        },
    }
}

/// Whether one of the members of a `tracestate` is that of a load test.
fn has_load_test(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|member| member.trim_ascii() == LOAD_TEST)
}

/// Trace, span, and whether the trace is sampled.
fn parse_traceparent(value: &[u8]) -> Option<(TraceId, SpanId, bool)> {
    let mut parts = std::str::from_utf8(value).ok()?.split('-');
    let version = parts.next()?;
    if version.len() != 2 || version == "ff" {
        return None;
    }
    let trace: TraceId = parts.next()?.parse().ok()?;
    let span: SpanId = parts.next()?.parse().ok()?;
    let real = trace != TraceId::default() && span != SpanId::default();
    let flags = parts.next()?;
    let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    (flags.len() == 2 && real).then_some((trace, span, is_sampled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_test_is_known_among_other_members() {
        assert!(has_load_test(b"tidegate=load") && has_load_test(b"a=b, tidegate=load ,c=d"));
        assert!(!has_load_test(b"") && !has_load_test(b"xtidegate=load"));
    }

    #[test]
    fn only_a_real_traceparent_is_taken() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(parse_traceparent(good).is_some_and(|(_, _, is_sampled)| is_sampled));
        let unsampled = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02";
        assert!(parse_traceparent(unsampled).is_some_and(|(_, _, is_sampled)| !is_sampled));
        for bad in [
            &b""[..],
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert!(parse_traceparent(bad).is_none(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
