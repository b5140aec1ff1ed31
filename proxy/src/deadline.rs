//! When a call must be over: as its route says, and as its caller does.

use std::time::Duration;

use crate::head::Fields;

/// How long a caller is going to wait, where its client says so.
///
/// `grpc-timeout` (github.com/grpc/grpc, `doc/PROTOCOL-HTTP2.md`); `x-server-timeout`, in seconds,
/// of google-genai; `x-stainless-timeout`, in seconds, of the SDKs of OpenAI and Anthropic, which
/// is a limit to silence in some versions: it is never enforced, and only tells whether another
/// attempt is worth while; `x-envoy-upstream-rq-timeout-ms` of meshes.
pub(crate) fn of_caller(fields: &Fields) -> Option<Duration> {
    let text = |name| std::str::from_utf8(fields.get(name)?).ok().map(str::trim);
    let seconds = |name| {
        let seconds: f64 = text(name)?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    };
    let milliseconds = |name| text(name)?.parse().ok().map(Duration::from_millis);
    let said = [
        text("grpc-timeout").and_then(grpc),
        seconds("x-server-timeout"),
        seconds("x-stainless-timeout"),
        milliseconds("x-envoy-upstream-rq-timeout-ms"),
    ];
    said.into_iter().flatten().filter(|limit| !limit.is_zero()).min()
}

/// Up to eight digits and a unit.
fn grpc(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_own_limit_is_read_wherever_its_client_says_it() {
        let second = |seconds| Some(Duration::from_secs(seconds));
        for (name, value, limit) in [
            ("grpc-timeout", "5S", second(5)),
            ("grpc-timeout", "2M", second(120)),
            ("grpc-timeout", "100m", Some(Duration::from_millis(100))),
            ("grpc-timeout", "123456789S", None),
            ("grpc-timeout", "S", None),
            ("grpc-timeout", "", None),
            ("grpc-timeout", "5\u{fc}", None),
            ("X-Server-Timeout", "30", second(30)),
            ("x-stainless-timeout", "600", second(600)),
            ("x-stainless-timeout", "NOT_GIVEN", None),
            ("x-stainless-timeout", "-1", None),
            ("x-stainless-timeout", "0", None),
            ("x-envoy-upstream-rq-timeout-ms", "1500", Some(Duration::from_millis(1500))),
            ("x-other", "1", None),
        ] {
            let fields = Fields::of(&[(name.as_bytes(), value.as_bytes())]);
            assert_eq!(of_caller(&fields), limit, "{name}: {value}");
        }
    }
}
