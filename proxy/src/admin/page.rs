//! The live page: one document that needs nothing else, for browsers that ask for `/`.
//!
//! It shows what `/live` and `/policies` say, and asks for that again and again while somebody looks.

use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use ring::digest::{SHA256, digest};

const DOCUMENT: &str = include_str!("page/page.html");
/// uPlot 1.6.32 by Leon Sorokin; its licence stands beside it.
const CHARTS: &str = include_str!("page/uPlot.iife.min.js");
const SCRIPTS: [&str; 5] = [
    CHARTS,
    include_str!("page/text.js"),
    include_str!("page/charts.js"),
    include_str!("page/sections.js"),
    include_str!("page/page.js"),
];
const STYLES: [&str; 2] = [include_str!("page/uPlot.min.css"), include_str!("page/page.css")];

/// The document, and what its browser may do for it.
struct Page {
    html: Bytes,
    policy: HeaderValue,
}

/// Whether who asks would rather look than read.
pub(super) fn is_for(headers: &HeaderMap) -> bool {
    let accepts = headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

/// The page.
pub(super) fn answer() -> Response<Full<Bytes>> {
    static PAGE: OnceLock<Page> = OnceLock::new();
    let Page { html, policy } = PAGE.get_or_init(Page::new);
    Response::builder()
        .status(StatusCode::OK)
        .header(CONTENT_TYPE, "text/html; charset=utf-8")
        .header(CACHE_CONTROL, "no-store")
        .header(CONTENT_SECURITY_POLICY, policy)
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(X_FRAME_OPTIONS, "DENY")
        .header(REFERRER_POLICY, "no-referrer")
        .body(Full::new(html.clone()))
        .expect("these headers are valid")
}

impl Page {
    fn new() -> Self {
        let (script, style) = (SCRIPTS.join("\n"), STYLES.join("\n"));
        // Nothing runs but what stands here, and nothing is asked but this sidecar.
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(&script),
            source(&style)
        );
        let html = DOCUMENT.replace("/*style*/", &style).replace("/*script*/", &script);
        Self { html: html.into(), policy: policy.try_into().expect("it is ASCII") }
    }
}

/// A script, as a policy names it (CSP level 3, section 2.3.1).
fn source(script: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(digest(&SHA256, script.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_runs_nothing_but_its_own() {
        let Page { html, policy } = Page::new();
        let html = std::str::from_utf8(&html).expect("text");
        assert!(!html.contains("/*script*/") && !html.contains("/*style*/"));
        for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!html.contains(outside), "{outside}");
        }
        let script = html.split("<script>").nth(1).and_then(|rest| rest.split("</script>").next());
        let named = source(script.expect("there is one script"));
        assert!(policy.to_str().is_ok_and(|policy| policy.contains(&named)), "{policy:?}");
        assert_eq!(html.matches("<script").count(), 1);
    }

    #[test]
    fn browsers_get_the_page_and_others_the_list() {
        let accepting = |accepts: &'static str| {
            HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accepts))])
        };
        assert!(is_for(&accepting("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")));
        assert!(!is_for(&accepting("*/*")) && !is_for(&HeaderMap::new()));
    }
}
