//! The page of metrics, which is made as it is read: who reads slowly holds a small part of it, and who
//! stops reading holds up others for no longer than a page may be read.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER,
};
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::{Shown, text};
use crate::export::metrics::Registry;
use crate::export::prometheus::{Page, Prometheus};

/// Pages that are read at once; who comes when there are so many waits. Each holds what was counted as
/// it began, beside what is counted since.
const PAGES: usize = 4;
/// How long one may be read; then its connection is cut.
const READ: Duration = Duration::from_secs(30);
/// How long who comes when there are so many waits.
const WAIT: Duration = Duration::from_secs(5);

/// The metrics of a registry.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    prometheus: Prometheus,
    places: Arc<Semaphore>,
}

/// Since when the page is read on a connection; absent while it is not.
#[derive(Clone, Debug, Default)]
pub(super) struct Since(watch::Sender<Option<Instant>>);

/// Somebody asks for the page.
pub(super) struct Question {
    metrics: Metrics,
    accept: String,
    is_packed: bool,
}

/// A page that is being read.
struct Reading {
    page: Page,
    since: Since,
    _place: OwnedSemaphorePermit,
}

/// A page, packed as it is made.
struct Packed {
    page: Page,
    /// Until all is packed.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        let places = Arc::new(Semaphore::new(PAGES));
        Self { prometheus: Prometheus::new(registry), places }
    }

    pub(super) fn asked(&self, headers: &HeaderMap) -> Question {
        let accept = list(headers, &ACCEPT).join(",");
        let is_packed = takes_gzip(&list(headers, &ACCEPT_ENCODING).join(","));
        Question { metrics: self.clone(), accept, is_packed }
    }
}

// === impl Since ===

impl Since {
    /// When it has been read for too long.
    pub(super) async fn is_over(&self) {
        let mut since = self.0.subscribe();
        loop {
            let begun = *since.borrow_and_update();
            let over = async {
                match begun {
                    Some(begun) => tokio::time::sleep_until(begun + READ).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                _ = since.changed() => {}
            }
        }
    }
}

// === impl Question ===

impl Question {
    /// The page, or that too many are read.
    pub(super) async fn answer(self, since: Since) -> Response<Shown> {
        let Metrics { prometheus, places } = self.metrics;
        let Ok(place) = tokio::time::timeout(WAIT, places.acquire_owned()).await else {
            return busy().map(BodyExt::boxed_unsync);
        };
        let place = place.expect("nobody closes it");
        since.0.send_replace(Some(Instant::now()));
        let (content_type, mut page) = prometheus.accepted(&self.accept);
        if self.is_packed {
            page = Box::new(Packed::new(page));
        }
        let mut answer = Response::new(Reading { page, since, _place: place }.boxed_unsync());
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.is_packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}

// === impl Reading ===

impl Body for Reading {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.page.next().map(|part| Ok(Frame::data(part))))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.since.0.send_replace(None);
    }
}

// === impl Packed ===

impl Packed {
    fn new(page: Page) -> Self {
        Self { page, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }
}

impl Iterator for Packed {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        const TAKEN: &str = "memory takes all that is written";
        loop {
            let encoder = self.encoder.as_mut()?;
            let Some(part) = self.page.next() else {
                return Some(self.encoder.take()?.finish().expect(TAKEN).into());
            };
            encoder.write_all(&part).expect(TAKEN);
            let packed = std::mem::take(encoder.get_mut());
            if !packed.is_empty() {
                return Some(packed.into());
            }
        }
    }
}

fn busy() -> Response<Full<Bytes>> {
    let reason = format!("{PAGES} others read the metrics\n");
    let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    refused.headers_mut().insert(RETRY_AFTER, WAIT.as_secs().into());
    refused
}

/// The values of a field that may stand more than once.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
}

fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_gzip && quality != Some(0.0)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn asked(accept_encoding: &'static str) -> HeaderMap {
        [(ACCEPT_ENCODING, HeaderValue::from_static(accept_encoding))].into_iter().collect()
    }

    async fn read(body: Shown) -> Vec<u8> {
        body.collect().await.expect("it cannot fail").to_bytes().to_vec()
    }

    #[tokio::test]
    async fn who_takes_gzip_gets_the_same_page_packed() {
        let metrics = Metrics::new(Arc::new(Registry::new([], [])));
        let plain = metrics.asked(&HeaderMap::new()).answer(Since::default()).await;
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
        let plain = read(plain.into_body()).await;
        let packed = metrics.asked(&asked("gzip")).answer(Since::default()).await;
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        let packed = read(packed.into_body()).await;
        assert!(packed.len() < plain.len() / 2, "{} of {}", packed.len(), plain.len());
        let mut unpacked = Vec::new();
        GzDecoder::new(&*packed).read_to_end(&mut unpacked).expect("it is gzip");
        assert_eq!(unpacked, plain);
    }

    #[test]
    fn only_who_says_so_takes_gzip() {
        for encoding in ["gzip", "deflate, GZIP;q=0.5", "br;q=1.0,gzip;q=0.8, *;q=0.1"] {
            assert!(takes_gzip(encoding), "{encoding}");
        }
        for encoding in ["", "identity", "gzip;q=0", "x-gzip", "br, gzip; q=0.0"] {
            assert!(!takes_gzip(encoding), "{encoding}");
        }
    }

    #[tokio::test]
    async fn one_page_too_many_waits_until_another_is_read() {
        let metrics = Metrics::new(Arc::new(Registry::new([], [])));
        let ask = || metrics.asked(&HeaderMap::new()).answer(Since::default());
        let mut open = Vec::new();
        for _ in 0..PAGES {
            open.push(ask().await);
        }
        let mut waiting = std::pin::pin!(ask());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(open.pop());
        assert_eq!(waiting.await.status(), 200);
    }
}
