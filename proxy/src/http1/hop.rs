//! Which fields belong to one connection and are not forwarded (RFC 9110, section 7.6.1).

use crate::head::Fields;

/// Fields that stay on their connection whether or not `Connection` names them.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "upgrade",
];

/// Fields that a caller may not have dropped on the way by naming them in `Connection`.
const PROTECTED: [&str; 14] = [
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "x-amz-security-token",
    "x-amz-date",
    "x-amz-content-sha256",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "traceparent",
];

/// What this field is called if it is one that `Connection` must not name.
pub(crate) fn protected(option: &[u8]) -> Option<&'static str> {
    PROTECTED.into_iter().find(|name| option.eq_ignore_ascii_case(name.as_bytes()))
}

/// Tells the fields of one message that are forwarded from those that are not.
pub(crate) struct HopByHop<'a> {
    fields: &'a Fields,
    names_more: bool,
}

impl<'a> HopByHop<'a> {
    /// Reads what `Connection` names.
    pub(crate) fn of(fields: &'a Fields) -> Self {
        let usual = |option: &[u8]| {
            let option = option.trim_ascii();
            option.is_empty()
                || option.eq_ignore_ascii_case(b"keep-alive")
                || option.eq_ignore_ascii_case(b"close")
        };
        let names_more = fields
            .iter()
            .filter(|(name, _)| is_connection(name))
            .any(|(_, value)| !value.split(|byte| *byte == b',').all(usual));
        Self { fields, names_more }
    }

    /// Whether the field of this name stays on its connection.
    pub(crate) fn holds(&self, name: &[u8]) -> bool {
        let listed = match name.len() {
            2 | 7 | 10 | 16 | 18 | 19 => {
                HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
            }
            _ => false,
        };
        listed || self.names_more && self.is_named(name)
    }

    fn is_named(&self, name: &[u8]) -> bool {
        self.fields.iter().filter(|(field, _)| is_connection(field)).any(|(_, value)| {
            value
                .split(|byte| *byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(name))
        })
    }
}

fn is_connection(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let map = lines
            .iter()
            .map(|(name, value)| {
                (name.parse::<http::HeaderName>().expect("a name"), value.parse().expect("a value"))
            })
            .collect();
        Fields::from_map(&map)
    }

    #[test]
    fn listed_and_named_fields_stay_and_all_others_go_on() {
        let fields = fields(&[("connection", "close, X-Hop"), ("x-hop", "1"), ("x-end", "2")]);
        let hop = HopByHop::of(&fields);
        for (name, stays) in [
            ("Connection", true),
            ("keep-alive", true),
            ("TE", true),
            ("Upgrade", true),
            ("proxy-authorization", true),
            ("x-hop", true),
            ("x-end", false),
            ("authorization", false),
            ("trailer", false),
        ] {
            assert_eq!(hop.holds(name.as_bytes()), stays, "{name}");
        }
    }

    #[test]
    fn every_listed_name_is_found_by_its_length() {
        let fields = fields(&[]);
        let hop = HopByHop::of(&fields);
        for name in HOP_BY_HOP {
            assert!(hop.holds(name.as_bytes()), "{name}");
        }
    }
}
