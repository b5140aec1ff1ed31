//! The path of a request, by segments.

/// Deeper than any call that we know, prefixes in front aside.
const SEGMENTS: usize = 16;

/// The last segments of a path, as sent: calls are recognised at the end, whatever stands in front.
pub(crate) struct Path<'a> {
    segments: [&'a str; SEGMENTS],
    first: usize,
}

impl<'a> Path<'a> {
    pub(crate) fn new(path: &'a str) -> Self {
        let mut segments = [""; SEGMENTS];
        let mut first = SEGMENTS;
        for segment in path.strip_suffix('/').unwrap_or(path).rsplit('/').take(SEGMENTS) {
            first -= 1;
            segments[first] = segment;
        }
        Self { segments, first }
    }

    pub(crate) fn segments(&self) -> &[&'a str] {
        &self.segments[self.first..]
    }

    /// The segment after this one, as in `projects/{project}`.
    pub(crate) fn after(&self, name: &str) -> Option<&'a str> {
        let mut segments = self.segments().iter();
        segments.find(|segment| **segment == name)?;
        segments.next().copied()
    }
}
