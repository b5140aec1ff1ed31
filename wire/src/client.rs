//! What a caller's SDK tells of itself in the head of its request.

use crate::dialect::Path;
use crate::{HeadView, Headers};

/// More digits than an SDK has tries.
const DIGITS: usize = 4;

/// How often the caller had tried this call before, as its SDK counts.
pub(crate) fn retries(headers: &dyn Headers) -> Option<u32> {
    match headers.value("x-stainless-retry-count") {
        Some(count) => number(count.trim_ascii()),
        None => earlier_attempts(headers.value("amz-sdk-request")?),
    }
}

/// Of `attempt=2; max=3`, which names the try that this is.
fn earlier_attempts(value: &[u8]) -> Option<u32> {
    let mut fields = value.split(|byte| *byte == b';');
    let attempt = fields.find_map(|field| field.trim_ascii().strip_prefix(b"attempt="))?;
    number(attempt)?.checked_sub(1)
}

/// A number as SDKs write it; anything else is none.
fn number(text: &[u8]) -> Option<u32> {
    let is_plain = text.len() <= DIGITS && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// How Google's SDKs name themselves.
const GOOGLE_SDK: &[u8] = b"google-genai-sdk";

/// Where Google's SDKs put calls, of the Gemini API and of Vertex AI. What they call without a model
/// stands behind a version as well, unless the base URL was told to hold that.
const GOOGLE_COLLECTIONS: &[&str] = &[
    "agents",
    "auth_tokens",
    "batchPredictionJobs",
    "batches",
    "cachedContents",
    "credentials",
    "decisions",
    "endpoints",
    "environments",
    "fileSearchStores",
    "files",
    "interactions",
    "models",
    "operations",
    "projects",
    "publishers",
    "triggers",
    "tunedModels",
    "tuningJobs",
    "upload",
    "voices",
    "webhooks",
];

/// Whether a call of Google's SDK lost its path on the way.
///
/// With a base URL of one's own, and project and location from the environment or not at all, it
/// posts every call to the base URL itself (googleapis/python-genai#2021): no model, no verb, and no
/// upstream can tell what was meant.
pub(crate) fn has_lost_path(head: &HeadView<'_>, path: &Path<'_>) -> bool {
    head.method == "POST" && names_nothing(path.segments()) && is_google_sdk(head.headers)
}

fn names_nothing(segments: &[&str]) -> bool {
    let last = segments.last().copied().unwrap_or_default();
    let has_verb = last.contains(':') || last.contains("%3A") || last.contains("%3a");
    let is_behind_version = segments
        .split_last()
        .is_some_and(|(_, front)| front.iter().any(|segment| is_version(segment.as_bytes())));
    let is_collection = segments.iter().any(|segment| GOOGLE_COLLECTIONS.contains(segment));
    !has_verb && !is_behind_version && !is_collection
}

/// `v1`, `v1beta`, `v1beta1`, `v1alpha`, ...
fn is_version(segment: &[u8]) -> bool {
    matches!(segment, [b'v', digit, rest @ ..]
        if digit.is_ascii_digit() && rest.iter().all(u8::is_ascii_alphanumeric))
}

fn is_google_sdk(headers: &dyn Headers) -> bool {
    ["x-goog-api-client", "user-agent"].iter().any(|name| {
        let value = headers.value(name).unwrap_or_default();
        value.windows(GOOGLE_SDK.len()).any(|part| part == GOOGLE_SDK)
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        fields.iter().map(|(name, v)| (HeaderName::from_static(name), value(v))).collect()
    }

    #[test]
    fn the_tries_before_this_one_are_read_as_each_sdk_counts_them() {
        const STAINLESS: &str = "x-stainless-retry-count";
        const AMAZON: &str = "amz-sdk-request";
        for (fields, expected) in [
            (&[][..], None),
            (&[(STAINLESS, "0")], Some(0)),
            (&[(STAINLESS, "2")], Some(2)),
            (&[(STAINLESS, " 2 ")], Some(2)),
            (&[(STAINLESS, "")], None),
            (&[(STAINLESS, "-1")], None),
            (&[(STAINLESS, "+1")], None),
            (&[(STAINLESS, "1e3")], None),
            (&[(STAINLESS, "10000")], None),
            (&[(STAINLESS, "4294967297")], None),
            (&[(AMAZON, "attempt=1; max=3")], Some(0)),
            (&[(AMAZON, "attempt=2; max=3")], Some(1)),
            (&[(AMAZON, "ttl=20261126T061444Z; attempt=3;max=3")], Some(2)),
            (&[(AMAZON, "attempt=1")], Some(0)),
            (&[(AMAZON, "attempt=0; max=3")], None),
            (&[(AMAZON, "attempt=; max=3")], None),
            (&[(AMAZON, "attempt=two; max=3")], None),
            (&[(AMAZON, "attempt=-2")], None),
            (&[(AMAZON, "attempt=99999999999999999999")], None),
            (&[(AMAZON, "max=3")], None),
            (&[(AMAZON, ";;;")], None),
            (&[(AMAZON, "\u{ff}\u{fe}")], None),
        ] {
            assert_eq!(retries(&headers(fields)), expected, "{fields:?}");
        }
    }

    #[test]
    fn only_a_call_of_googles_sdk_that_names_nothing_has_lost_its_path() {
        const SDK: (&str, &str) = ("x-goog-api-client", "google-genai-sdk/3.4.0 gl-python/3.11.7");
        const AGENT: (&str, &str) = ("user-agent", "google-genai-sdk/2.32.0 gl-node/v18");
        const OTHER: (&str, &str) = ("user-agent", "curl/8");
        for (method, path, client, expected) in [
            ("POST", "/", SDK, true),
            ("POST", "/", AGENT, true),
            ("POST", "/vertex", SDK, true),
            ("POST", "/vertex/", SDK, true),
            ("POST", "/google/vertex", SDK, true),
            ("POST", "/v1beta1", SDK, true),
            ("POST", "/vertex/v1", SDK, true),
            ("POST", "/", OTHER, false),
            ("GET", "/", SDK, false),
            ("DELETE", "/vertex", SDK, false),
            ("POST", "/v1beta/models/m:generateContent", SDK, false),
            (
                "POST",
                "/vertex/v1beta1/projects/p/locations/l/publishers/google/models/m:x",
                SDK,
                false,
            ),
            ("POST", "/v1beta1/projects/p/locations/l/cachedContents", SDK, false),
            ("POST", "/v1beta1/projects/p/locations/l/batchPredictionJobs", SDK, false),
            ("POST", "/v1beta1/projects/p/locations/l/tuningJobs", SDK, false),
            ("POST", "/v1beta/cachedContents", SDK, false),
            ("POST", "/v1beta/tunedModels", SDK, false),
            ("POST", "/v1beta/files", SDK, false),
            ("POST", "/v1beta/files:register", SDK, false),
            ("POST", "/upload/v1beta/files", SDK, false),
            ("POST", "/upload/v1beta/fileSearchStores/s:uploadToFileSearchStore", SDK, false),
            ("POST", "/v1beta/fileSearchStores/s/documents", SDK, false),
            ("POST", "/v1beta/batches/b:cancel", SDK, false),
            ("POST", "/v1alpha/auth_tokens", SDK, false),
            ("POST", "/v1beta/interactions", SDK, false),
            ("POST", "/v1beta/interactions/i/cancel", SDK, false),
            ("POST", "/v1beta/agents", SDK, false),
            ("POST", "/v1beta/something-new", SDK, false),
            ("POST", "/gateway/cachedContents", SDK, false),
            ("POST", "/gateway/m:predict", SDK, false),
            ("POST", "/gateway/m%3Apredict", SDK, false),
        ] {
            let headers = headers(&[client]);
            let head = HeadView { method, host: None, path, query: None, headers: &headers };
            let lost = has_lost_path(&head, &Path::new(path));
            assert_eq!(lost, expected, "{method} {path} {client:?}");
        }
    }
}
