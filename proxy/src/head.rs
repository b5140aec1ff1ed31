//! The head of a message, kept as the bytes that came.
//!
//! Header lines are forwarded as they stand (order, case and repetition included), so a head is one
//! block of bytes and the places in it, not a map.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_wire::Headers as WireHeaders;

use crate::tls::ShownNames;

/// The fields of a head, in the order in which they came.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    block: Bytes,
    /// Shared: a call that may be made again keeps a copy of its head.
    places: Arc<[Place]>,
}

/// Where one field stands in the block. A head has at most 64 KiB, so 32 bits are plenty.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: http::Method,
    /// Path and query as sent.
    pub(crate) target: Target,
    /// The authority that the caller named: `Host`, or `:authority`.
    pub(crate) authority: Bytes,
    pub(crate) version: http::Version,
    /// Whether the caller asks to change its connection to what `Upgrade` names.
    pub(crate) upgrades: bool,
    /// Whether the target came as a whole URL, which is how a proxy is asked.
    pub(crate) is_absolute: bool,
    /// The server that a call is meant for that was not made to us.
    pub(crate) meant: Option<Arc<Meant>>,
    /// Who its caller is by a certificate that it has shown.
    pub(crate) shown: Option<Arc<ShownNames>>,
    pub(crate) fields: Fields,
}

/// A server that a caller means to talk to, through us or past us.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Meant {
    pub(crate) tls: bool,
    /// In lower case, without the brackets of IPv6.
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
}

/// What an upstream answers.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    /// The reason phrase as sent; empty over HTTP/2.
    pub(crate) reason: Bytes,
    pub(crate) fields: Fields,
}

/// A path and query in origin form: printable ASCII.
#[derive(Clone)]
pub(crate) struct Target {
    text: Bytes,
    query_at: Option<u32>,
}

// === impl Fields ===

impl Fields {
    /// Fields that stand in `block` at the places which the slices (parts of it) point to.
    pub(crate) fn within<'a>(
        block: Bytes,
        fields: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let base = block.as_ptr() as usize;
        let span = |part: &[u8]| {
            // An empty value may point anywhere.
            let start = if part.is_empty() { 0 } else { part.as_ptr() as usize - base };
            (start as u32, (start + part.len()) as u32)
        };
        let place = |(name, value)| Place { name: span(name), value: span(value) };
        let places = fields.map(place).collect();
        Self { block, places }
    }

    /// The same fields from a header map (HTTP/2), one line each.
    pub(crate) fn from_map(map: &HeaderMap) -> Self {
        let mut block = Vec::with_capacity(map.len() * 48);
        let mut places = Vec::with_capacity(map.len());
        for (name, value) in map {
            let start = block.len() as u32;
            block.extend_from_slice(name.as_str().as_bytes());
            let middle = block.len() as u32;
            block.extend_from_slice(value.as_bytes());
            let end = block.len() as u32;
            places.push(Place { name: (start, middle), value: (middle, end) });
        }
        Self { block: block.into(), places: places.into() }
    }

    /// A header map of the fields for which `keep` holds, for HTTP/2.
    pub(crate) fn to_map(&self, keep: impl Fn(&[u8]) -> bool) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.places.len());
        for (name, value) in self.iter().filter(|(name, _)| keep(name)) {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                map.append(name, value);
            }
        }
        map
    }

    /// Names and values as they came.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.places.iter().map(|place| (self.slice(place.name), self.slice(place.value)))
    }

    /// The first value of this field.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The length of the body, where it is stated.
    pub(crate) fn content_length(&self) -> Option<u64> {
        std::str::from_utf8(self.get("content-length")?).ok()?.trim().parse().ok()
    }

    /// The same fields with this one in place of those of its name, else at the end.
    pub(crate) fn with(&self, name: &str, value: &[u8]) -> Self {
        let is_it = |field: &[u8]| field.eq_ignore_ascii_case(name.as_bytes());
        let mut is_there = false;
        let lines = self.iter().filter_map(|(field, old)| match is_it(field) {
            false => Some((field, old)),
            true => (!std::mem::replace(&mut is_there, true)).then_some((field, value)),
        });
        let mut lines: Vec<_> = lines.collect();
        if !is_there {
            lines.push((name.as_bytes(), value));
        }
        Self::of(&lines)
    }

    /// The same fields without those of this name.
    pub(crate) fn without(&self, name: &str) -> Self {
        let is_other = |(field, _): &(&[u8], &[u8])| !field.eq_ignore_ascii_case(name.as_bytes());
        Self::of(&self.iter().filter(is_other).collect::<Vec<_>>())
    }

    /// These lines.
    pub(crate) fn of(lines: &[(&[u8], &[u8])]) -> Self {
        let size = lines.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut block = Vec::with_capacity(size);
        let mut span = |part: &[u8]| {
            let start = block.len() as u32;
            block.extend_from_slice(part);
            (start, block.len() as u32)
        };
        let place = |(name, value): &(&[u8], &[u8])| Place { name: span(name), value: span(value) };
        let places = lines.iter().map(place).collect();
        Self { block: block.into(), places }
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.block[start as usize..end as usize]
    }
}

/// Names alone: a value may be a credential.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.iter().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_list().entries(names).finish()
    }
}

impl WireHeaders for Fields {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.get(name)
    }

    fn each(&self, show: &mut dyn FnMut(&[u8], &[u8])) {
        self.iter().for_each(|(name, value)| show(name, value));
    }
}

// === impl RequestHead ===

impl RequestHead {
    /// Whether its caller has signed it for AWS, so that nothing of it may change.
    pub(crate) fn is_signed(&self) -> bool {
        let authorization = self.fields.get("authorization");
        authorization.is_some_and(|value| value.trim_ascii_start().starts_with(b"AWS4-"))
    }

    /// The host that the caller named, without its port.
    pub(crate) fn host(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.authority).ok()?;
        let host = match text.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => text,
        };
        (!host.is_empty()).then_some(host)
    }
}

// === impl Meant ===

impl Meant {
    /// The server that an authority names; nothing where that is none.
    pub(crate) fn read(authority: &[u8], tls: bool) -> Option<Self> {
        let text = std::str::from_utf8(authority).ok()?;
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().ok()?))
            }
            _ => (text, None),
        };
        // What has colons stands in brackets, and is an address (RFC 3986, section 3.2.2).
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|host| host.parse::<Ipv6Addr>().is_ok())?,
            None if host.contains([':', ']']) => return None,
            None => host,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        (!host.is_empty() && port != 0).then(|| Self {
            tls,
            host: host.to_ascii_lowercase().into(),
            port,
        })
    }

    /// The same server, with TLS or without.
    pub(crate) fn by(&self, tls: bool) -> Self {
        Self { tls, ..self.clone() }
    }

    /// Whether an authority names this very server.
    pub(crate) fn is_named_by(&self, authority: &[u8]) -> bool {
        Self::read(authority, self.tls).is_some_and(|named| named == *self)
    }
}

// === impl Target ===

impl Target {
    /// Takes a path and query in origin form.
    pub(crate) fn new(text: Bytes) -> Self {
        let query_at = memchr::memchr(b'?', &text).map(|at| at as u32);
        Self { text, query_at }
    }

    /// Path and query.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The path, percent-encoded as it came.
    pub(crate) fn path(&self) -> &str {
        let end = self.query_at.map_or(self.text.len(), |at| at as usize);
        std::str::from_utf8(&self.text[..end]).unwrap_or("/")
    }

    /// The query, without its `?`.
    pub(crate) fn query(&self) -> Option<&str> {
        let at = self.query_at? as usize;
        std::str::from_utf8(&self.text[at + 1..]).ok()
    }

    /// The same target without a prefix of its path; itself where it does not begin with it.
    pub(crate) fn without_prefix(&self, prefix: &str) -> Self {
        match self.text.strip_prefix(prefix.trim_end_matches('/').as_bytes()) {
            Some(rest) if rest.first() == Some(&b'/') => Self::new(self.text.slice_ref(rest)),
            Some(rest) if rest.is_empty() || rest[0] == b'?' => {
                Self::new([b"/", rest].concat().into())
            }
            _ => self.clone(),
        }
    }
}

/// The path alone: a query may hold a credential.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.path()).finish()
    }
}
