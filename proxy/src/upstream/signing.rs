//! Signs calls to an upstream that has a credential of its own.
//!
//! Last of all before a connection is sought, and anew at each attempt. The caller's own
//! credentials stay here. What is signed is a head apart: the call keeps the one that it came
//! with, so that whoever has it next never sees what is meant for this upstream alone.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tidegate_credential::{Credential, Request, Version, is_credential, without_credentials};
use tokio::time::timeout;

use super::Origin;
use crate::call::{Call, RequestBody};
use crate::config::{LimitsConfig, TimeoutsConfig};
use crate::credentials::Refusals;
use crate::error::Error;
use crate::exchange::{Notes, Wait};
use crate::head::{Fields, RequestHead, ResponseHead, Target};
use crate::hold::{AtomicU64, Hold};
use crate::http1::hop::HopByHop;
use crate::http1::write::is_ours;

/// The warning in the record of a call whose trailers could not be signed, and did not go on.
const TRAILERS_LEFT_OUT: &str = "trailers_left_out";
/// The warning in the record of a call whose answer showed that our clock is wrong.
const CLOCK_CORRECTED: &str = "clock_corrected";
/// What is set aside for a body before any of it has come.
const FIRST_BYTES: u64 = 64 << 10;

/// The credential of one upstream, and how much may be held to sign with it.
#[derive(Debug)]
pub(crate) struct Signing {
    upstream: Arc<str>,
    credential: Credential,
    refusals: Arc<Refusals>,
    /// Of one body, and of all.
    limits: (u64, u64),
    body_idle: Duration,
    /// Bytes that all calls hold.
    held: Arc<AtomicU64>,
}

impl Signing {
    pub(crate) fn new(
        upstream: Arc<str>,
        (credential, refusals): (Credential, Arc<Refusals>),
        timeouts: &TimeoutsConfig,
        limits: &LimitsConfig,
        held: &Arc<AtomicU64>,
    ) -> Self {
        Self {
            upstream,
            credential,
            refusals,
            limits: (limits.signed_body.as_u64(), limits.signed_bodies.as_u64()),
            body_idle: timeouts.request_body_idle.0,
            held: held.clone(),
        }
    }

    /// Takes in how a call was answered that was signed with this version of the credential. Whether
    /// it may be answered otherwise with another signature, for which is waited no longer than `limit`.
    pub(crate) async fn answered(
        &self,
        head: &ResponseHead,
        version: Version,
        notes: &Notes,
        limit: Duration,
    ) -> bool {
        let is_corrected = self.corrects_clock(head, notes);
        // Of calls that were refused together for their time, one corrects the clock.
        if is_corrected || is_refusal(head) && self.credential.is_of_another_clock(version) {
            return true;
        }
        if !is_refusal(head) {
            return false;
        }
        self.refusals.add(&self.upstream, head.status);
        notes.credential_refused();
        let _waiting = (!limit.is_zero()).then(|| notes.waiting(Wait::Retry));
        self.credential.renew(version, limit).await
    }

    /// Whether the answer shows that our clock is wrong: then it is right from now on.
    fn corrects_clock(&self, head: &ResponseHead, notes: &Notes) -> bool {
        let field = |name: &str| std::str::from_utf8(head.fields.get(name)?).ok();
        let Some(offset_s) = self.credential.answered(head.status, field) else { return false };
        tracing::warn!(
            upstream = %self.upstream,
            offset_s,
            "signature refused for its time: our clock is wrong, the upstream's is used from now on"
        );
        notes.record(|record| record.warnings.push(CLOCK_CORRECTED.into()));
        true
    }

    /// What a call holds, for as long as it is sent.
    pub(crate) fn hold(&self) -> Hold {
        Hold::new(&self.held)
    }

    /// The head to send in place of the call's own, and the version of the credential in it; the body
    /// is held where it must be signed.
    pub(crate) async fn sign(
        &self,
        call: &mut Call,
        origin: &Origin,
        hold: &mut Hold,
    ) -> Result<(RequestHead, Version), Error> {
        let body = match self.credential.needs_body() {
            true => self.whole_body(call, hold).await?,
            false => Bytes::new(),
        };
        let mut head = call.head.clone();
        head.target = stripped(&head.target);
        let signed = self.signed(&head, origin, &body).await;
        let (fields, version) = signed
            .map_err(|source| Error::Credential { upstream: self.upstream.clone(), source })?;
        head.fields = fields;
        Ok((head, version))
    }

    /// The fields of the head, signed.
    async fn signed(
        &self,
        head: &RequestHead,
        origin: &Origin,
        body: &[u8],
    ) -> Result<(Fields, Version), tidegate_credential::Error> {
        let kept = |name: &[u8]| !is_credential(name) && !self.credential.sets(name);
        let mut lines: Vec<_> = head.fields.iter().filter(|(name, _)| kept(name)).collect();
        let signed = match self.credential.needs_body() {
            true => self.credential.sign(&covered(head, origin, &lines, body)?.request()).await?,
            false => self.credential.sign(&Request::default()).await?,
        };
        lines.retain(|(name, _)| {
            !signed.headers.iter().any(|(own, _)| name.eq_ignore_ascii_case(own.as_bytes()))
        });
        for (name, value) in &signed.headers {
            let value = value.expose().as_bytes();
            if !value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
                let reason = "it holds characters that a header may not have";
                return Err(tidegate_credential::Error::Unsignable(reason.to_owned()));
            }
            lines.push((name.as_bytes(), value));
        }
        Ok((Fields::of(&lines), signed.version))
    }

    /// Takes the whole body off its caller, as it is without framing.
    async fn whole_body(&self, call: &mut Call, hold: &mut Hold) -> Result<Bytes, Error> {
        let body = match &*call.body {
            RequestBody::Empty => return Ok(Bytes::new()),
            RequestBody::Full(bytes) => {
                let bytes = bytes.clone();
                self.more(hold, bytes.len())?;
                return Ok(bytes);
            }
            RequestBody::Http1(_) | RequestBody::Http2(_) => self.read(call, hold).await?,
        };
        let fields = ["transfer-encoding", "expect", "trailer"].iter().fold(
            call.head.fields.clone(),
            |fields, name| match fields.get(name) {
                Some(_) => fields.without(name),
                None => fields,
            },
        );
        call.head.fields = fields.with("content-length", body.len().to_string().as_bytes());
        *call.body = RequestBody::Full(body.clone());
        Ok(body)
    }

    async fn read(&self, call: &mut Call, hold: &mut Hold) -> Result<Bytes, Error> {
        let start = Instant::now();
        let length = call.head.fields.content_length().unwrap_or_default();
        if length > self.limits.0 {
            return Err(Error::SignedBodyTooLarge { limit_bytes: self.limits.0 });
        }
        let_come(call).await;
        let mut whole = BytesMut::with_capacity(length.min(FIRST_BYTES) as usize);
        match self.read_into(&mut whole, call, hold).await {
            Ok(true) => {
                call.notes.record(|record| record.warnings.push(TRAILERS_LEFT_OUT.into()));
            }
            Ok(false) => {}
            Err(error) => {
                // The rest would say nothing without its beginning, which is gone.
                call.notes.request_known(&whole);
                drop(call.body.take());
                return Err(error);
            }
        }
        call.notes.waited(Wait::Body, start.elapsed());
        Ok(whole.freeze())
    }

    /// Reads the body to its end; whether there are trailers behind it.
    async fn read_into(
        &self,
        whole: &mut BytesMut,
        call: &mut Call,
        hold: &mut Hold,
    ) -> Result<bool, Error> {
        let mut has_trailers = false;
        loop {
            let piece = timeout(self.body_idle, piece(&mut call.body, &mut has_trailers));
            let Ok(piece) = piece.await else {
                return Err(Error::BodyTimeout { limit_s: self.body_idle.as_secs() });
            };
            let Some(piece) = piece? else { return Ok(has_trailers) };
            self.more(hold, piece.len())?;
            whole.extend_from_slice(&piece);
        }
    }

    /// Holds so many bytes more, if there is room for them.
    fn more(&self, hold: &mut Hold, bytes: usize) -> Result<(), Error> {
        hold.more(bytes as u64);
        let ((mine, all), (one_limit, all_limit)) = (hold.bytes(), self.limits);
        if mine > one_limit {
            return Err(Error::SignedBodyTooLarge { limit_bytes: one_limit });
        }
        // One alone always finds room.
        if all > all_limit && all > mine {
            return Err(Error::SignedBodiesFull { limit_bytes: all_limit });
        }
        Ok(())
    }
}

/// Whether an upstream does not accept the credential, by HTTP or by gRPC, which has its status in
/// the head where there is no more (`UNAUTHENTICATED`, `PERMISSION_DENIED`).
fn is_refusal(head: &ResponseHead) -> bool {
    let by_grpc = || matches!(head.fields.get("grpc-status"), Some(b"16" | b"7"));
    matches!(head.status, 401 | 403) || by_grpc()
}

/// The target without the caller's own credentials.
fn stripped(target: &Target) -> Target {
    let text = std::str::from_utf8(target.as_bytes()).unwrap_or("/");
    match without_credentials(text) {
        std::borrow::Cow::Borrowed(same) if same.len() == text.len() => target.clone(),
        shorter => Target::new(Bytes::copy_from_slice(shorter.as_bytes())),
    }
}

/// Tells a caller that waits for it to send its body.
async fn let_come(call: &Call) {
    let RequestBody::Http1(framed) = &*call.body else { return };
    let is_http11 = call.head.version == http::Version::HTTP_11;
    let is_waiting = framed.conn.peek(|ahead| ahead.is_empty()) && !framed.is_done();
    if is_http11 && is_waiting && call.head.fields.get("expect").is_some() {
        let mut rest: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        while !rest.is_empty() {
            match poll_fn(|cx| framed.conn.poll_write(cx, rest)).await {
                Ok(written @ 1..) => rest = &rest[written..],
                // Reading finds out.
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// The next piece of a body; nothing is its end.
async fn piece(body: &mut RequestBody, has_trailers: &mut bool) -> Result<Option<Bytes>, Error> {
    match body {
        RequestBody::Empty => Ok(None),
        RequestBody::Full(bytes) if bytes.is_empty() => Ok(None),
        RequestBody::Full(bytes) => Ok(Some(std::mem::take(bytes))),
        RequestBody::Http1(framed) => {
            let piece = poll_fn(|cx| framed.poll_payload(cx)).await.map_err(Error::of_caller)?;
            *has_trailers = piece.is_none() && !framed.trailers().is_empty();
            Ok(piece)
        }
        RequestBody::Http2(body) => {
            let frame = poll_fn(|cx| body.poll_frame(cx)).await.transpose();
            match frame.map_err(|_| Error::CallerLeft)?.map(http_body::Frame::into_data) {
                None => Ok(None),
                Some(Ok(data)) => Ok(Some(data)),
                Some(Err(_)) => {
                    *has_trailers = true;
                    Ok(None)
                }
            }
        }
    }
}

/// What a signature covers.
struct Covered<'a> {
    method: &'a str,
    scheme: &'a str,
    host: &'a str,
    path_and_query: String,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl Covered<'_> {
    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            scheme: self.scheme,
            host: self.host,
            path_and_query: &self.path_and_query,
            headers: &self.headers,
            body: self.body,
        }
    }
}

/// What goes over the wire of this head: fields that stay on their connection do not.
fn covered<'a>(
    head: &'a RequestHead,
    origin: &'a Origin,
    lines: &[(&'a [u8], &'a [u8])],
    body: &'a [u8],
) -> Result<Covered<'a>, tidegate_credential::Error> {
    let text = |bytes: &'a [u8]| std::str::from_utf8(bytes);
    let not_text = |_| tidegate_credential::Error::Unsignable("it is no text".to_owned());
    let hop = HopByHop::of(&head.fields);
    let sent = lines.iter().filter(|(name, _)| !hop.holds(name) && !is_ours(name));
    let headers = sent.filter_map(|(name, value)| Some((text(name).ok()?, text(value).ok()?)));
    let base = text(&origin.base).map_err(not_text)?;
    let target = text(head.target.as_bytes()).map_err(not_text)?;
    Ok(Covered {
        method: head.method.as_str(),
        scheme: if origin.tls { "https" } else { "http" },
        host: text(&origin.authority).map_err(not_text)?,
        path_and_query: format!("{base}{target}"),
        headers: headers.collect(),
        body,
    })
}
