//! Reads the heads of HTTP/1.1 messages and refuses what could be read in two ways.
//!
//! RFC 9112, and the lessons of request smuggling: reject, do not repair.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{Method, Version};
use memchr::{memchr_iter, memmem};

use super::framing::Framing;
use crate::head::{Fields, RequestHead, ResponseHead, Target};

/// Bytes that a head may take.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Fields that a head may have.
pub(crate) const MAX_FIELDS: usize = 100;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("not an HTTP/1.1 message; is this the right protocol for this port?")]
    NotHttp,
    #[error("head is over {MAX_HEAD} bytes or {MAX_FIELDS} fields")]
    TooLarge,
    #[error("line ends without CRLF, or header continues on a second line")]
    LineEnd,
    #[error(
        "more than one statement of the body's length: send either content-length or transfer-encoding, once"
    )]
    AmbiguousLength,
    #[error("content-length is not a plain number")]
    BadLength,
    #[error("transfer-encoding must be exactly `chunked`, over HTTP/1.1")]
    BadCoding,
    #[error("exactly one host header is needed")]
    Host,
    #[error("request target must be a path on this host")]
    Target,
    #[error("changes to a protocol that was not asked for")]
    Switching,
    #[error(
        "method CONNECT is not served here; set HTTPS_PROXY to the address in `intercept.listen`"
    )]
    Connect,
    #[error(
        "this address is for HTTP_PROXY and HTTPS_PROXY; calls that are made to Tidegate itself go to \
         the address in `listen`"
    )]
    NotForProxy,
    #[error("this host is not in `intercept.hosts`, and `intercept.unlisted` is `refuse`")]
    Unlisted,
    #[error("this connection was made to another host than the one that this call names")]
    Misdirected,
    #[error("connection header must not name {0}")]
    Nominated(&'static str),
}

/// A head, and what it says of its message and connection.
#[derive(Debug)]
pub(crate) struct Parsed<H> {
    pub(crate) head: H,
    pub(crate) framing: Framing,
    /// Whether the sender means to use the connection again.
    pub(crate) keep_alive: bool,
    /// Whether a request asks for `100 Continue` before it sends its body.
    pub(crate) expects_continue: bool,
}

/// Length of the head at the front of `bytes`, its last empty line included; `None` while it is cut.
pub(crate) fn head_length(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    match memmem::find(bytes, b"\r\n\r\n") {
        // Whole or not, the same first bytes are refused; an empty line may yet be in front.
        _ if bytes.first().is_some_and(|byte| !byte.is_ascii_alphabetic()) && bytes != b"\r" => {
            Err(HeadError::NotHttp)
        }
        Some(at) if at + 4 <= MAX_HEAD => Ok(Some(at + 4)),
        Some(_) => Err(HeadError::TooLarge),
        None if bytes.len() > MAX_HEAD => Err(HeadError::TooLarge),
        None => check_line_ends(bytes).map(|()| None),
    }
}

/// Length of the empty lines in front of a request: a caller may send some (RFC 9112, section 2.2).
pub(crate) fn empty_lines(mut ahead: &[u8]) -> usize {
    let length = ahead.len();
    while let Some(rest) = ahead.strip_prefix(b"\r\n") {
        ahead = rest;
    }
    length - ahead.len()
}

/// The bytes of the head at the front of what was read, if it is whole.
pub(crate) fn take_head(ahead: &[u8]) -> Result<Option<Bytes>, HeadError> {
    Ok(head_length(ahead)?.map(|length| Bytes::copy_from_slice(&ahead[..length])))
}

/// Reads the head of a request; `block` is exactly that head.
pub(crate) fn request(block: Bytes) -> Result<Parsed<RequestHead>, HeadError> {
    check_line_ends(&block)?;
    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let status = request.parse_with_uninit_headers(&block, &mut lines).map_err(refusal)?;
    if !matches!(status, httparse::Status::Complete(length) if length == block.len()) {
        return Err(HeadError::NotHttp);
    }
    let version = version(request.version);
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadError::NotHttp)?;
    if method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    let said = Said::read(request.headers, version)?;
    let host = said.host.ok_or(HeadError::Host)?;
    check_authority(host)?;
    let path = request.path.unwrap_or_default();
    let target = origin_form(path, host, &method)?;
    let framing = match (said.length, said.chunked) {
        (None, false) | (Some(0), false) => Framing::Empty,
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (Some(_), true) => return Err(HeadError::AmbiguousLength),
    };
    let head = RequestHead {
        method,
        target: Target::new(match target {
            "" => Bytes::from_static(b"/"),
            target => block.slice_ref(target.as_bytes()),
        }),
        authority: block.slice_ref(host),
        version,
        upgrades: version == Version::HTTP_11
            && said.upgrade == (true, Some(true))
            // Where a body stands in front of it, two readers could see the change at two places.
            && framing == Framing::Empty,
        is_absolute: !path.starts_with('/') && path != "*",
        meant: None,
        shown: None,
        fields: fields(&block, request.headers),
    };
    Ok(Parsed {
        framing,
        keep_alive: said.keep_alive,
        expects_continue: said.expects_continue && version == Version::HTTP_11,
        head,
    })
}

/// Reads the head of a response to a request of this method; `block` is exactly that head.
pub(crate) fn response(block: Bytes, method: &Method) -> Result<Parsed<ResponseHead>, HeadError> {
    check_line_ends(&block)?;
    let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, &block, &mut lines)
        .map_err(refusal)?;
    if !matches!(status, httparse::Status::Complete(length) if length == block.len()) {
        return Err(HeadError::NotHttp);
    }
    let said = Said::read(response.headers, version(response.version))?;
    let code = response.code.unwrap_or_default();
    if !(100..=999).contains(&code) {
        return Err(HeadError::NotHttp);
    }
    let bodiless = *method == Method::HEAD || code < 200 || code == 204 || code == 304;
    let framing = match (said.length, said.chunked) {
        (Some(_), true) => return Err(HeadError::AmbiguousLength),
        _ if bodiless => Framing::Empty,
        (None, true) => Framing::Chunked,
        (Some(0), false) => Framing::Empty,
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::UntilClose,
    };
    Ok(Parsed {
        head: ResponseHead {
            status: code,
            reason: response
                .reason
                .filter(|reason| !reason.is_empty())
                .map_or_else(Bytes::new, |reason| block.slice_ref(reason.as_bytes())),
            fields: fields(&block, response.headers),
        },
        keep_alive: said.keep_alive && framing != Framing::UntilClose,
        framing,
        expects_continue: false,
    })
}

/// What the fields say of framing and connection.
struct Said<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    keep_alive: bool,
    closes: bool,
    expects_continue: bool,
    /// Whether `Connection` names it, and whether what it names may all pass.
    upgrade: (bool, Option<bool>),
}

impl<'a> Said<'a> {
    fn read(lines: &[httparse::Header<'a>], version: Version) -> Result<Self, HeadError> {
        let mut said = Self {
            host: None,
            length: None,
            chunked: false,
            keep_alive: version == Version::HTTP_11,
            closes: false,
            expects_continue: false,
            upgrade: (false, None),
        };
        for line in lines {
            match line.name.len() {
                4 if line.name.eq_ignore_ascii_case("host") => {
                    once(said.host.replace(line.value), HeadError::Host)?;
                }
                6 if line.name.eq_ignore_ascii_case("expect") => {
                    said.expects_continue = line.value.eq_ignore_ascii_case(b"100-continue");
                }
                7 if line.name.eq_ignore_ascii_case("upgrade") => {
                    let before = said.upgrade.1.unwrap_or(true);
                    said.upgrade.1 = Some(before && super::upgrade::may_pass(line.value));
                }
                10 if line.name.eq_ignore_ascii_case("connection") => {
                    said.connection(line.value)?;
                }
                14 if line.name.eq_ignore_ascii_case("content-length") => {
                    once(said.length.replace(length(line.value)?), HeadError::AmbiguousLength)?;
                }
                17 if line.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if said.chunked {
                        return Err(HeadError::AmbiguousLength);
                    }
                    if version != Version::HTTP_11 || !line.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(HeadError::BadCoding);
                    }
                    said.chunked = true;
                }
                _ => {}
            }
        }
        // Whatever else is said of the connection (RFC 9112, section 9.3).
        said.keep_alive &= !said.closes;
        Ok(said)
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                // Over HTTP/1.0 it must be asked for.
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade.0 = true;
            } else if let Some(named) = super::hop::protected(option) {
                return Err(HeadError::Nominated(named));
            }
        }
        Ok(())
    }
}

fn once<T>(earlier: Option<T>, error: HeadError) -> Result<(), HeadError> {
    earlier.map_or(Ok(()), |_| Err(error))
}

fn fields(block: &Bytes, lines: &[httparse::Header<'_>]) -> Fields {
    Fields::within(block.clone(), lines.iter().map(|line| (line.name.as_bytes(), line.value)))
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 }
}

fn length(value: &[u8]) -> Result<u64, HeadError> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(HeadError::BadLength)
}

/// The path and query of a request target; an absolute form must name the host that `Host` names.
fn origin_form<'a>(target: &'a str, host: &[u8], method: &Method) -> Result<&'a str, HeadError> {
    let path = match target.as_bytes() {
        b"*" if *method == Method::OPTIONS => return Ok(target),
        [b'/', ..] => target,
        _ => {
            let rest = target.strip_prefix("http://").ok_or(HeadError::Target)?;
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if !authority.as_bytes().eq_ignore_ascii_case(host) || path.starts_with('?') {
                return Err(HeadError::Target);
            }
            path
        }
    };
    check_path(path)?;
    Ok(path)
}

/// A path that two readers would read alike: visible ASCII, no fragment, no dot segments.
pub(crate) fn check_path(target: &str) -> Result<(), HeadError> {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\';
    let path = target.split('?').next().unwrap_or_default();
    let dotted = path.contains(['.', '%']) && path.split('/').any(is_dot_segment);
    if target.bytes().all(legal) && !dotted { Ok(()) } else { Err(HeadError::Target) }
}

fn is_dot_segment(segment: &str) -> bool {
    matches!(segment, "." | "..") || {
        segment.len() <= 6
            && matches!(segment.to_ascii_lowercase().as_str(), "%2e" | "%2e%2e" | "%2e." | ".%2e")
    }
}

/// A host and port, without anything that could be read as a path or as credentials.
pub(crate) fn check_authority(host: &[u8]) -> Result<(), HeadError> {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte);
    if !host.is_empty() && host.iter().all(legal) { Ok(()) } else { Err(HeadError::Host) }
}

fn check_line_ends(bytes: &[u8]) -> Result<(), HeadError> {
    for at in memchr_iter(b'\n', bytes) {
        let folded = matches!(bytes.get(at + 1), Some(b' ' | b'\t'));
        if at == 0 || bytes[at - 1] != b'\r' || folded {
            return Err(HeadError::LineEnd);
        }
    }
    Ok(())
}

fn refusal(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        _ => HeadError::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Parsed<RequestHead>, HeadError> {
        match head_length(text.as_bytes())? {
            Some(length) => request(Bytes::copy_from_slice(&text.as_bytes()[..length])),
            None => panic!("no whole head in {text:?}"),
        }
    }

    #[test]
    fn a_plain_head_is_read_as_it_stands() {
        let parsed = parse(
            "POST /v1/chat?k=%20 HTTP/1.1\r\nHost: a:80\r\nX-A:  b \r\nContent-Length: 12\r\n\r\n",
        )
        .expect("legal");
        assert_eq!(parsed.head.target.path(), "/v1/chat");
        assert_eq!(parsed.head.target.query(), Some("k=%20"));
        assert_eq!(parsed.head.host(), Some("a"));
        assert_eq!(parsed.head.fields.get("x-a"), Some(&b"b"[..]));
        assert_eq!(parsed.framing, Framing::Length(12));
        assert!(parsed.keep_alive);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let cases = [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", HeadError::AmbiguousLength),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", HeadError::AmbiguousLength),
            ("Content-Length: 1, 1\r\n", HeadError::BadLength),
            ("Content-Length: +1\r\n", HeadError::BadLength),
            ("Content-Length: 0x1\r\n", HeadError::BadLength),
            ("Content-Length: \r\n", HeadError::BadLength),
            ("Content-Length: 99999999999999999999\r\n", HeadError::BadLength),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                HeadError::AmbiguousLength,
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", HeadError::BadCoding),
            ("Transfer-Encoding: \"chunked\"\r\n", HeadError::BadCoding),
            ("Transfer-Encoding: identity\r\n", HeadError::BadCoding),
            ("Host: b\r\n", HeadError::Host),
            ("X: a\r\n b\r\n", HeadError::LineEnd),
            ("X: a\nY: b\r\n", HeadError::LineEnd),
            ("X: a\rY: b\r\n", HeadError::NotHttp),
            ("X: a\0b\r\n", HeadError::NotHttp),
            ("X : a\r\n", HeadError::NotHttp),
            (": a\r\n", HeadError::NotHttp),
            ("Connection: close, Authorization\r\n", HeadError::Nominated("authorization")),
            ("Connection: host\r\n", HeadError::Nominated("host")),
        ];
        for (lines, error) in cases {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(parse(&text).err(), Some(error), "{lines:?}");
        }
    }

    #[test]
    fn a_target_that_is_no_plain_path_on_this_host_is_refused() {
        for (target, error) in [
            ("http://b/", HeadError::Target),
            ("http://a@b/", HeadError::Target),
            ("https://a/", HeadError::Target),
            ("http://a?x", HeadError::Target),
            ("a", HeadError::Target),
            ("*", HeadError::Target),
            ("/a/../b", HeadError::Target),
            ("/a/%2e%2E/b", HeadError::Target),
            ("/a/.", HeadError::Target),
            ("/a#b", HeadError::Target),
            ("/a\\b", HeadError::Target),
        ] {
            let text = format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(parse(&text).err(), Some(error), "{target:?}");
        }
        let parsed = parse("GET http://A/x HTTP/1.1\r\nHost: a\r\n\r\n").expect("the same host");
        assert_eq!(parsed.head.target.path(), "/x");
    }

    #[test]
    fn the_host_is_stated_once_and_is_a_host() {
        for lines in ["", "Host: \r\n", "Host: a/b\r\n", "Host: u@a\r\n", "Host: a b\r\n"] {
            let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(parse(&text).err(), Some(HeadError::Host), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_http_is_told_before_its_head_is_whole() {
        assert_eq!(head_length(b"\x16\x03\x01\x02"), Err(HeadError::NotHttp));
        assert_eq!(head_length(b"GET / HTTP/1.1\nHost: a\n\n"), Err(HeadError::LineEnd));
        assert_eq!(head_length(&[b'a'; MAX_HEAD + 1]), Err(HeadError::TooLarge));
        assert_eq!(head_length(b"GET / HT"), Ok(None));
    }

    #[test]
    fn first_bytes_are_read_alike_whole_or_in_parts() {
        assert_eq!(head_length(b"1GE"), Err(HeadError::NotHttp));
        assert_eq!(head_length(b"1GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadError::NotHttp));
        assert_eq!(head_length(b"\r"), Ok(None));
        assert_eq!(empty_lines(b"\r\n\r\nGET"), 4);
        assert_eq!(empty_lines(b"\r"), 0);
    }

    #[test]
    fn who_closes_closes_whatever_else_it_says() {
        for value in ["close", "close, keep-alive", "keep-alive, close"] {
            let parsed =
                parse(&format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n"));
            assert!(!parsed.expect("legal").keep_alive, "{value}");
        }
    }

    #[test]
    fn http_1_0_closes_unless_asked_and_never_chunks() {
        let parsed = parse("GET / HTTP/1.0\r\nHost: a\r\n\r\n").expect("legal");
        assert!(!parsed.keep_alive);
        let parsed =
            parse("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n").expect("legal");
        assert!(parsed.keep_alive);
        let chunked = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(chunked).err(), Some(HeadError::BadCoding));
    }

    #[test]
    fn a_response_ends_where_its_status_and_fields_say() {
        let framing = |text: &str, method: &Method| {
            response(Bytes::copy_from_slice(text.as_bytes()), method).map(|parsed| parsed.framing)
        };
        let get = &Method::GET;
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", get), Ok(Framing::UntilClose));
        assert_eq!(framing("HTTP/1.1 204 No\r\n\r\n", get), Ok(Framing::Empty));
        assert_eq!(
            framing("HTTP/1.1 200\r\ncontent-length: 4\r\n\r\n", &Method::HEAD),
            Ok(Framing::Empty)
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", get),
            Ok(Framing::Chunked)
        );
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(framing(bad, get), Err(HeadError::AmbiguousLength));
        }
        assert_eq!(framing("ICY 200 OK\r\n\r\n", get), Err(HeadError::NotHttp));
    }
}
