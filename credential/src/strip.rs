//! The caller's own credentials, which do not go to an upstream that has one of its own.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Fields that carry a caller's credential or signature.
const FIELDS: &[&str] = &[
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-goog-user-project",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// Parameters of a query that do the same.
const PARAMETERS: &[&str] = &["key", "access_token", "api-key", "api_key"];

/// Whether a field carries a caller's credential or signature.
pub fn is_credential(name: &[u8]) -> bool {
    FIELDS.iter().any(|field| field.as_bytes().eq_ignore_ascii_case(name))
}

/// Path and query without the parameters that carry a credential; every other byte stays.
pub fn without_credentials(path_and_query: &str) -> Cow<'_, str> {
    let Some((path, query)) = path_and_query.split_once('?') else {
        return Cow::Borrowed(path_and_query);
    };
    if !query.split('&').any(is_parameter) {
        return Cow::Borrowed(path_and_query);
    }
    let kept: Vec<_> = query.split('&').filter(|part| !is_parameter(part)).collect();
    match kept.is_empty() {
        true => Cow::Borrowed(path),
        false => Cow::Owned(format!("{path}?{}", kept.join("&"))),
    }
}

/// The values of a query's parameters that carry a credential, decoded.
pub fn credential_parameters(path_and_query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let query = path_and_query.split_once('?').map_or("", |(_, query)| query);
    let parts = query.split('&').filter(|part| is_parameter(part));
    parts.map(|part| {
        let value = part.split_once('=').map_or("", |(_, value)| value);
        percent_decode_str(value).decode_utf8_lossy()
    })
}

fn is_parameter(part: &str) -> bool {
    let name = part.split_once('=').map_or(part, |(name, _)| name);
    // Whoever reads it decodes it first.
    let name = percent_decode_str(name).decode_utf8_lossy();
    let is_presigned = name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"));
    is_presigned || PARAMETERS.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_the_query_and_nothing_else_does() {
        for (before, after) in [
            ("/v1/models", "/v1/models"),
            ("/v1/a?alt=sse", "/v1/a?alt=sse"),
            ("/v1/a?key=K", "/v1/a"),
            ("/v1/a?key=K&alt=sse", "/v1/a?alt=sse"),
            ("/v1/a?alt=sse&key=K&b=%20+", "/v1/a?alt=sse&b=%20+"),
            ("/v1/a?X-Amz-Signature=S&x=monkey", "/v1/a?x=monkey"),
            ("/v1/a?KEY", "/v1/a"),
            ("/v1/a?%6bey=K&%61=%FF", "/v1/a?%61=%FF"),
        ] {
            assert_eq!(without_credentials(before), after);
        }
    }

    #[test]
    fn the_values_of_keys_in_a_query_are_told_decoded() {
        let values = |target| credential_parameters(target).collect::<Vec<_>>();
        assert_eq!(values("/v1/a?alt=sse&key=a%2Fb&%6bey=c&key"), ["a/b", "c", ""]);
        assert!(values("/v1/a").is_empty() && values("/v1/a?x=key").is_empty());
    }

    #[test]
    fn a_callers_own_fields_are_known_in_any_case() {
        assert!(is_credential(b"Authorization") && is_credential(b"X-Amz-Date"));
        assert!(!is_credential(b"x-amz-meta") && !is_credential(b"content-type"));
    }
}
