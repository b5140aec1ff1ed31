//! Gets a page, within bounds.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::RootCertStore;

use super::ScrapeConfig;
use crate::export::catalog::VERSION;
use crate::export::otlp::Secret;

/// The formats that we read, in the order in which we like them.
const FORMATS: &str =
    "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Why a page was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody answers there, or the answer broke off.
    Connect,
    /// It took too long.
    Timeout,
    /// The answer is an error.
    Status,
    /// It is longer than allowed.
    TooLarge,
    /// It is packed in a way that was not asked for, or wrongly.
    Encoding,
    /// It is something else: a page for people, say.
    NotMetrics,
}

/// All of them.
pub(super) const FAILURES: [Failure; 6] = [
    Failure::Connect,
    Failure::Timeout,
    Failure::Status,
    Failure::TooLarge,
    Failure::Encoding,
    Failure::NotMetrics,
];

/// Asks for one page again and again.
pub(super) struct Fetch {
    client: reqwest::Client,
    url: String,
    timeout: Duration,
    max_page: usize,
}

// === impl Failure ===

impl Failure {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Encoding => "encoding",
            Self::NotMetrics => "not_metrics",
        }
    }

    pub(super) fn index(self) -> usize {
        FAILURES.iter().position(|failure| *failure == self).expect("all are listed")
    }
}

// === impl Fetch ===

impl Fetch {
    pub(super) fn new(config: &ScrapeConfig) -> Result<Self, Box<dyn std::error::Error>> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(FORMATS));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(USER_AGENT, HeaderValue::try_from(format!("tidegate/{VERSION} (scrape)"))?);
        for (name, Secret(value)) in &config.headers {
            let mut value = HeaderValue::try_from(value)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name)?, value);
        }
        let client = reqwest::Client::builder()
            // The variables of proxies may lead back to ourselves.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(headers)
            .tls_backend_preconfigured(tls(config.url.starts_with("https")))
            .build()?;
        let max_page = usize::try_from(config.max_page.as_u64()).unwrap_or(usize::MAX);
        Ok(Self { client, url: config.url.clone(), timeout: config.timeout.0, max_page })
    }

    /// The page, as text; what is no UTF-8 is replaced.
    pub(super) async fn page(&self) -> Result<String, Failure> {
        let page = tokio::time::timeout(self.timeout, self.bytes());
        let (bytes, is_gzip) = page.await.map_err(|_| Failure::Timeout)??;
        let bytes = if is_gzip { unpacked(&bytes, self.max_page)? } else { bytes };
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    async fn bytes(&self) -> Result<(Vec<u8>, bool), Failure> {
        let sent = self.client.get(&self.url).send();
        let mut answer = sent.await.map_err(|_| Failure::Connect)?;
        if !answer.status().is_success() {
            return Err(Failure::Status);
        }
        let is_gzip = match answer.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"x-gzip") => true,
            Some(_) => return Err(Failure::Encoding),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|_| Failure::Connect)? {
            if bytes.len() + piece.len() > self.max_page {
                return Err(Failure::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, is_gzip))
    }
}

/// Few bytes may unpack to many.
fn unpacked(bytes: &[u8], most: usize) -> Result<Vec<u8>, Failure> {
    let mut whole = Vec::new();
    let decoder = flate2::read::MultiGzDecoder::new(bytes);
    let read = decoder.take(most as u64 + 1).read_to_end(&mut whole);
    match read.map_err(|_| Failure::Encoding)? {
        read if read > most => Err(Failure::TooLarge),
        _ => Ok(whole),
    }
}

fn tls(is_needed: bool) -> rustls::ClientConfig {
    let mut authorities = RootCertStore::empty();
    if is_needed {
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_unpacks_to_more_than_allowed_is_not_read() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![b'a'; 1 << 20]).expect("memory");
        let packed = packed.finish().expect("memory");
        assert!(packed.len() < 2_000);
        assert_eq!(unpacked(&packed, 1 << 20).expect("it fits").len(), 1 << 20);
        assert_eq!(unpacked(&packed, (1 << 20) - 1), Err(Failure::TooLarge));
        assert_eq!(unpacked(b"no gzip", 99), Err(Failure::Encoding));
    }
}
