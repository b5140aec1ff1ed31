//! The status of a gRPC call (github.com/grpc/grpc, `doc/statuscodes.md`), and what stands behind
//! it in a `google.rpc.Status` (github.com/googleapis/googleapis, `google/rpc/status.proto`).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::proto::{Value, fields};
use crate::{ErrorOrigin, Headers};

/// The names of the codes, from 0 on.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// What a status counts as that is no number: so do gRPC's own libraries.
const UNKNOWN: u32 = 2;

/// Binary fields come with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// How a gRPC call ended, as its server says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) code: u32,
    /// Seconds after which to try again.
    pub(crate) retry_after: Option<f64>,
}

impl Status {
    /// Reads it where there is one.
    pub(crate) fn read(headers: &dyn Headers) -> Option<Self> {
        let code = std::str::from_utf8(headers.value("grpc-status")?).ok();
        let code = code.and_then(|code| code.trim().parse().ok()).unwrap_or(UNKNOWN);
        let retry_after = headers
            .value("grpc-status-details-bin")
            .and_then(retry_delay)
            .or_else(|| headers.value("grpc-retry-pushback-ms").and_then(pushback));
        Some(Self { code, retry_after: retry_after.filter(|_| code != 0) })
    }

    /// Whether the call failed.
    pub(crate) fn is_error(&self) -> bool {
        self.code != 0
    }

    /// The name of the code, or the code where it has none.
    pub(crate) fn name(&self) -> String {
        let name = usize::try_from(self.code).ok().and_then(|code| NAMES.get(code));
        name.map_or_else(|| self.code.to_string(), |&name| name.to_owned())
    }

    /// Whose fault it is.
    pub(crate) fn origin(&self) -> ErrorOrigin {
        match self.code {
            8 => ErrorOrigin::Quota,
            3 | 5 | 6 | 7 | 9 | 11 | 12 | 16 => ErrorOrigin::Client,
            _ => ErrorOrigin::Upstream,
        }
    }
}

/// The `RetryInfo` among the details of a status: `Status.details = 3`, `Any.type_url = 1` and
/// `value = 2`, `RetryInfo.retry_delay = 1`, `Duration.seconds = 1` and `nanos = 2`.
fn retry_delay(encoded: &[u8]) -> Option<f64> {
    let status = BASE64.decode(encoded).ok()?;
    let mut details = fields(&status).filter_map(|field| bytes(field, 3));
    let info = details.find_map(|any| {
        let kind = fields(any).find_map(|field| bytes(field, 1))?;
        let is_retry_info = kind.ends_with(b"/google.rpc.RetryInfo");
        fields(any).find_map(|field| bytes(field, 2)).filter(|_| is_retry_info)
    })?;
    let delay = fields(info).find_map(|field| bytes(field, 1))?;
    let mut seconds = 0.0;
    for (number, value) in fields(delay) {
        match (number, value) {
            (1, Value::Number(whole)) => seconds += whole.cast_signed() as f64,
            (2, Value::Number(nanos)) => seconds += nanos.cast_signed() as f64 / 1e9,
            _ => {}
        }
    }
    Some(seconds).filter(|seconds| *seconds >= 0.0)
}

fn bytes<'a>((number, value): (u32, Value<'a>), wanted: u32) -> Option<&'a [u8]> {
    match value {
        Value::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    }
}

/// What gRPC's own retries go by; below zero it means not to try again.
fn pushback(milliseconds: &[u8]) -> Option<f64> {
    let milliseconds: i64 = std::str::from_utf8(milliseconds).ok()?.trim().parse().ok()?;
    (milliseconds >= 0).then_some(milliseconds as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> Option<Status> {
        let mut headers = http::HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().expect("a value"));
        }
        Status::read(&headers)
    }

    #[test]
    fn a_status_has_a_name_and_says_whose_fault_it_is() {
        for (text, code, name, origin) in [
            ("8", 8, "RESOURCE_EXHAUSTED", ErrorOrigin::Quota),
            ("3", 3, "INVALID_ARGUMENT", ErrorOrigin::Client),
            ("16", 16, "UNAUTHENTICATED", ErrorOrigin::Client),
            ("14", 14, "UNAVAILABLE", ErrorOrigin::Upstream),
            ("1", 1, "CANCELLED", ErrorOrigin::Upstream),
            ("99", 99, "99", ErrorOrigin::Upstream),
            ("nonsense", 2, "UNKNOWN", ErrorOrigin::Upstream),
            ("-1", 2, "UNKNOWN", ErrorOrigin::Upstream),
        ] {
            let status = read(&[("grpc-status", text)]).expect("a status");
            assert_eq!((status.code, &*status.name(), status.origin()), (code, name, origin));
        }
        assert!(!read(&[("grpc-status", "0")]).expect("a status").is_error());
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn retry_info_is_found_among_other_details() {
        let field = |number: u8, bytes: &[u8]| -> Vec<u8> {
            [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
        };
        let any = |kind: &str, value: &[u8]| {
            field(3, &[field(1, kind.as_bytes()), field(2, value)].concat())
        };
        let duration = [8, 30, 16, 0x80, 0xCA, 0xB5, 0xEE, 0x01];
        let status = [
            vec![8, 8],
            field(2, b"quota"),
            any("type.googleapis.com/google.rpc.ErrorInfo", &field(1, b"RATE_LIMIT_EXCEEDED")),
            any("type.googleapis.com/google.rpc.RetryInfo", &field(1, &duration)),
        ];
        let status = status.concat();
        let padded = base64::engine::general_purpose::STANDARD.encode(&status);
        for text in [&*padded, padded.trim_end_matches('=')] {
            let fields = [("grpc-status", "8"), ("grpc-status-details-bin", text)];
            assert_eq!(read(&fields).expect("a status").retry_after, Some(30.5));
        }
        for length in 0..status.len() {
            retry_delay(BASE64.encode(&status[..length]).as_bytes());
        }
    }

    #[test]
    fn pushback_stands_in_for_details() {
        let wait = |text| {
            let fields = [("grpc-status", "14"), ("grpc-retry-pushback-ms", text)];
            read(&fields).expect("a status").retry_after
        };
        assert_eq!(wait("1500"), Some(1.5));
        assert_eq!(wait("-1"), None);
        assert_eq!(wait("soon"), None);
    }
}
