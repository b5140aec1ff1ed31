//! What makes two calls one: who asks, where, and what.
//!
//! All of it goes into one form in which each part stands behind its length, so that no text can
//! pass for two parts or for another. Two functions that have nothing in common make a key of it: an
//! entry is found by the one and compared by the other, so that a call gets an answer that is not its
//! own only where both fail at once. The form itself would be as long as the prompt, and would be
//! most of what is kept. Both are keyed by a secret of this process: they tell nothing of what a
//! caller sent, credentials among it.
//!
//! Of the fields of a head all count but those that are known to make no difference: a field that
//! nobody here knows may be a credential.

use std::borrow::Cow;
use std::fmt;

use ring::hmac;
use tidegate_credential::{is_credential, without_credentials};
use tidegate_wire::glob;

use crate::head::{Fields, RequestHead};

/// The form's own version: what was kept under another is nobody's.
const FORM: &[u8] = b"tidegate cache 1";

/// Fields that make no difference to an answer: those of the connection, of tracing, of clients'
/// own names and limits, and of each try.
const IGNORED: &[&str] = &[
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "anthropic-dangerous-direct-browser-access",
    "b3",
    "baggage",
    "cache-control",
    "connection",
    "content-length",
    "date",
    "dnt",
    "expect",
    "forwarded",
    "grpc-timeout",
    "host",
    "idempotency-key",
    "keep-alive",
    "pragma",
    "priority",
    "proxy-connection",
    "request-id",
    "sec-*",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "uber-trace-id",
    "user-agent",
    "via",
    "x-amz-user-agent",
    "x-amzn-trace-id",
    "x-b3-*",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-datadog-*",
    "x-envoy-*",
    "x-forwarded-*",
    "x-goog-api-client",
    "x-goog-request-params",
    "x-idempotency-key",
    "x-ms-client-request-id",
    "x-ms-useragent",
    "x-real-ip",
    "x-request-id",
    "x-server-timeout",
    "x-stainless-*",
    "x-tidegate-*",
];

/// Fields of AWS's signatures: other ones with each call.
const OF_SIGNATURE: &[&str] = &["x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];

/// What both functions are keyed by.
pub(crate) struct Secret {
    bytes: [u8; 32],
    check: hmac::Key,
}

/// What a call is known by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Finds an entry.
    pub(crate) id: Id,
    /// Must be the entry's, too.
    pub(crate) check: [u8; 32],
}

/// Finds an entry.
pub(crate) type Id = [u8; 32];

/// A call, as far as it must be equal.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The route and the upstreams behind it, with all that is configured of them.
    pub(crate) place: &'a [u8],
    /// The caller's name, where a key or a certificate of its own has proven it; a name alone proves
    /// nothing, and counts as the header that it is.
    pub(crate) caller: Option<&'a str>,
    /// Whether callers' credentials end here. Where they go on to an upstream, it is for that to say what
    /// they are worth: they count beside the name.
    pub(crate) is_signed_here: bool,
    pub(crate) head: &'a RequestHead,
    /// Fields that the user knows to make no difference.
    pub(crate) ignored: &'a [String],
    /// The body in canonical form, or what must be equal of it.
    pub(crate) body: &'a [u8],
}

/// Fields by their names in lower case.
type Lines<'a> = Vec<(Cow<'a, [u8]>, &'a [u8])>;

/// Parts one after the other, each behind its length.
#[derive(Default)]
struct Form(Vec<u8>);

// === impl Secret ===

impl Secret {
    /// Another one each time.
    pub(crate) fn draw() -> Self {
        Self::of(rand::random())
    }

    /// The same for all who have these bytes.
    pub(crate) fn of(bytes: [u8; 32]) -> Self {
        Self { bytes, check: hmac::Key::new(hmac::HMAC_SHA256, &bytes) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

// === impl Key ===

impl Key {
    /// The key of a call.
    pub(crate) fn of(asked: &Asked<'_>, secret: &Secret) -> Self {
        let (form, body) = (asked.form(), asked.body);
        let mut id = blake3::Hasher::new_keyed(&secret.bytes);
        id.update(&form.0).update(body);
        let mut check = hmac::Context::with_key(&secret.check);
        check.update(&form.0);
        check.update(body);
        let check = check.sign();
        let check = check.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self { id: *id.finalize().as_bytes(), check }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

// === impl Asked ===

impl Asked<'_> {
    /// All but the body, which is the last part and whose length the form ends with.
    fn form(&self) -> Form {
        let Self { place, caller, is_signed_here, head, ignored, body } = self;
        // A new field of a head does not compile until it is decided here whether it counts.
        let RequestHead {
            method,
            target,
            authority,
            version,
            upgrades,
            is_absolute,
            meant,
            shown,
            fields,
        } = head;
        // The upstream gets a host of its own, or the one that is meant; and an answer is the same by
        // any version of HTTP and either form of a target. Certificates end here: whose they are is told
        // by `caller`.
        let _ = (authority, version, is_absolute, shown);
        debug_assert!(!upgrades, "what asks for another protocol has no answer to keep");
        let mut form = Form(Vec::with_capacity(512));
        form.part(FORM);
        form.part(place);
        let meant =
            meant.as_ref().map(|meant| format!("{} {} {}", meant.tls, meant.host, meant.port));
        form.part(meant.unwrap_or_default().as_bytes());
        let target = String::from_utf8_lossy(target.as_bytes());
        let mut who = match caller.is_some() && *is_signed_here {
            true => Vec::new(),
            false => credentials(fields, &target),
        };
        who.extend(caller.map(|name| (b"caller"[..].into(), name.as_bytes())));
        form.lines(&who);
        form.part(method.as_str().as_bytes());
        form.part(without_credentials(&target).as_bytes());
        form.lines(&counted(fields, ignored));
        form.length(body.len());
        form
    }
}

/// The fields that count.
fn counted<'a>(fields: &'a Fields, ignored: &[String]) -> Lines<'a> {
    let lines = fields.iter().filter(|(name, _)| !is_credential(name));
    let lines = lines.map(|(name, value)| (lower_case(name), value));
    lines.filter(|(name, _)| !is_ignored(name, ignored)).collect()
}

fn is_ignored(name: &[u8], ignored: &[String]) -> bool {
    let matches = |pattern: &String| {
        let name = std::str::from_utf8(name);
        name.is_ok_and(|name| glob(&pattern.to_ascii_lowercase(), name))
    };
    makes_no_difference(name) || ignored.iter().any(matches)
}

/// Whether a field, its name in lower case, is known to make no difference to an answer.
fn makes_no_difference(name: &[u8]) -> bool {
    let known = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(front) => name.starts_with(front.as_bytes()),
        None => name == pattern.as_bytes(),
    };
    IGNORED.iter().any(known)
}

/// Whether two calls with other values of this field are two calls.
pub(crate) fn counts(name: &[u8]) -> bool {
    name != b"*" && !makes_no_difference(&name.to_ascii_lowercase())
}

fn lower_case(name: &[u8]) -> Cow<'_, [u8]> {
    match name.iter().any(u8::is_ascii_uppercase) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

/// Whose call it is, by all that could tell. Of AWS's signatures, which say something else each
/// time, it is the key that signed: where they are let through, nobody goes by them.
fn credentials<'a>(fields: &'a Fields, target: &'a str) -> Lines<'a> {
    let lines = fields.iter().filter(|(name, _)| is_credential(name));
    let is_of_signature =
        |name: &[u8]| OF_SIGNATURE.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name));
    let is_signed = fields.get("authorization").is_some_and(is_signature);
    let lines = lines.filter(|(name, _)| !(is_signed && is_of_signature(name)));
    let mut credentials: Lines<'_> = lines
        .map(|(name, value)| match is_signature(value) {
            true => (b"signer"[..].into(), signer(value)),
            false => (lower_case(name), value),
        })
        .collect();
    if without_credentials(target).len() != target.len() {
        credentials.push((b"target"[..].into(), target.as_bytes()));
    }
    credentials
}

/// Whether a credential is a signature for one call alone.
pub(crate) fn is_signature(value: &[u8]) -> bool {
    value.trim_ascii_start().starts_with(b"AWS4-")
}

/// The key that signed, without what it signed for.
fn signer(value: &[u8]) -> &[u8] {
    const MARK: &[u8] = b"Credential=";
    let at = memchr::memmem::find(value, MARK).map_or(value.len(), |at| at + MARK.len());
    let name = value[at..].split(|byte| matches!(byte, b'/' | b',')).next();
    name.unwrap_or_default()
}

// === impl Form ===

impl Form {
    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&(length as u64).to_le_bytes());
    }

    fn part(&mut self, part: &[u8]) {
        self.length(part.len());
        self.0.extend_from_slice(part);
    }

    /// Lines by their names; those of one name stay in their order.
    fn lines(&mut self, lines: &[(Cow<'_, [u8]>, &[u8])]) {
        let mut lines: Vec<_> = lines.iter().collect();
        lines.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.length(lines.len());
        for (name, value) in lines {
            self.part(name);
            self.part(value);
        }
    }
}

#[cfg(test)]
mod tests;
