//! The head of a request: whatever stands in it, it has a shape, and a small one.

use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_wire::{Dialect, HeadView, Observer, Shape};

use crate::input::Input;

/// An input has a line each for method, host, path, query, and the fields.
pub(crate) fn shape(data: &[u8]) {
    let mut input = Input::new(data);
    let mut line = || String::from_utf8_lossy(input.until(b'\n')).into_owned();
    let (method, host, path, query) = (line(), line(), line(), line());
    let mut headers = HeaderMap::new();
    while !input.is_empty() {
        let line = input.until(b'\n');
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let shape = Shape::read(&HeadView {
        method: &method,
        host: Some(&host).filter(|host| !host.is_empty()).map(String::as_str),
        path: &path,
        query: Some(&query).filter(|query| !query.is_empty()).map(String::as_str),
        headers: &headers,
    });
    assert!(shape.operation.is_some() || shape.dialect == Dialect::Other, "{shape:?}");
    // A byte that is no UTF-8 takes three.
    let most = 3 * path.len();
    assert!(shape.model.as_ref().is_none_or(|model| model.len() <= most), "{shape:?}");
    assert!(shape.project.as_ref().is_none_or(|project| project.len() <= most), "{shape:?}");
    let model = shape.model.clone();
    let observer = Observer::new(shape);
    assert_eq!(observer.model(), model.as_deref());
    assert!(!observer.awaits_model() || model.is_none());
}
