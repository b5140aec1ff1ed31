//! Charts as SVG within the page: lines, dots and bars between two axes.
//!
//! Colours are classes, so that a page is as dark as its reader likes. One unit is about a pixel of a
//! phone, where the letters must be legible.

use std::fmt::Write;

use super::scale::Scale;
use super::text::Escaped;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// A chart in the making.
pub(super) struct Chart {
    title: String,
    note: String,
    x: Scale,
    y: Scale,
    marks: String,
    /// Class and name of each thing in it.
    legend: Vec<(String, String)>,
}

// === impl Chart ===

impl Chart {
    /// An empty one; `across` says what its horizontal axis is.
    pub(super) fn new(title: &str, across: &str, x: Scale, y: Scale) -> Self {
        let mut marks = String::new();
        _ = write!(
            marks,
            r#"<text class="name" x="{}" y="{}">{}</text>"#,
            WIDTH - RIGHT,
            HEIGHT - 3.0,
            Escaped(across)
        );
        let (title, note) = (title.to_owned(), String::new());
        Self { title, note, x, y, marks, legend: Vec::new() }
    }

    /// Says below what one would not see.
    pub(super) fn note(mut self, note: String) -> Self {
        self.note = note;
        self
    }

    /// A line through these places, with gaps where there is none.
    pub(super) fn line(
        mut self,
        class: &str,
        name: &str,
        points: impl IntoIterator<Item = Option<(f64, f64)>>,
    ) -> Self {
        let mut path = String::new();
        let mut draws = false;
        for point in points {
            if let Some((x, y)) = point {
                let verb = if draws { 'L' } else { 'M' };
                _ = write!(path, "{verb}{:.1} {:.1}", self.across(x), self.down(y));
                // A place between two gaps is a dot.
                path.push_str(if draws { "" } else { "h0" });
            }
            draws = point.is_some();
        }
        _ = write!(self.marks, r#"<path class="line {class}" d="{path}"/>"#);
        self.named(class, name)
    }

    /// A dot at each of these places.
    pub(super) fn dots(
        mut self,
        class: &str,
        name: &str,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let mut path = String::new();
        for (x, y) in points {
            _ = write!(path, "M{:.1} {:.1}h0", self.across(x), self.down(y));
        }
        _ = write!(self.marks, r#"<path class="dots {class}" d="{path}"/>"#);
        self.named(class, name)
    }

    /// A bar between two places of the horizontal axis and two of the other.
    pub(super) fn bar(&mut self, class: &str, from: (f64, f64), to: (f64, f64), said: &str) {
        let (left, right) = (self.across(from.0), self.across(to.0));
        let (top, bottom) = (self.down(to.1), self.down(from.1));
        _ = write!(
            self.marks,
            r#"<rect class="bar {class}" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"><title>{}</title></rect>"#,
            (right - left - 0.5).max(0.5),
            bottom - top,
            Escaped(said)
        );
    }

    /// An upright line through a place of the horizontal axis, in a band between two others.
    pub(super) fn upright(
        mut self,
        class: &str,
        (low, at, high): (f64, f64, f64),
        name: &str,
    ) -> Self {
        let (left, middle, right) = (self.across(low), self.across(at), self.across(high));
        let bottom = HEIGHT - BOTTOM;
        _ = write!(
            self.marks,
            r#"<rect class="band {class}" x="{left:.1}" y="{TOP}" width="{:.1}" height="{:.1}"/><path class="upright {class}" d="M{middle:.1} {TOP}V{bottom}"/>"#,
            right - left,
            bottom - TOP
        );
        self.named(class, name)
    }

    /// Writes a name into the legend.
    pub(super) fn named(mut self, class: &str, name: &str) -> Self {
        if !name.is_empty() {
            self.legend.push((class.to_owned(), name.to_owned()));
        }
        self
    }

    /// The figure as it stands in the page.
    pub(super) fn html(&self) -> String {
        let mut html = String::new();
        let title = Escaped(&self.title);
        _ = write!(html, "<figure><figcaption>{title}</figcaption>");
        _ = write!(
            html,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{}{}</svg>"#,
            self.axes(),
            self.marks
        );
        if !self.legend.is_empty() {
            html.push_str(r#"<p class="legend">"#);
            for (class, name) in &self.legend {
                _ = write!(html, r#"<span class="{class}"><i></i>{}</span> "#, Escaped(name));
            }
            html.push_str("</p>");
        }
        if !self.note.is_empty() {
            _ = write!(html, r#"<p class="note">{}</p>"#, Escaped(&self.note));
        }
        html + "</figure>\n"
    }

    fn axes(&self) -> String {
        let mut axes = String::new();
        for (value, text) in &self.y.ticks {
            let y = self.down(*value);
            _ = write!(
                axes,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{}"/><text class="y" x="{}" y="{:.1}">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 5.0,
                y + 4.0,
                Escaped(text)
            );
        }
        for (value, text) in &self.x.ticks {
            // What stands at the edge must not be cut off by it.
            let class = if self.x.place(*value) > 0.99 { "last" } else { "x" };
            _ = write!(
                axes,
                r#"<text class="{class}" x="{:.1}" y="{}">{}</text>"#,
                self.across(*value),
                HEIGHT - BOTTOM + 15.0,
                Escaped(text)
            );
        }
        axes
    }

    fn across(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::html::scale::{count, seconds};

    #[test]
    fn a_line_has_gaps_where_nothing_was_measured() {
        let chart = Chart::new("a < b", "x", Scale::up_to(4.0, count), Scale::up_to(1.0, seconds));
        let points = [Some((0.0, 0.0)), Some((1.0, 1.0)), None, Some((4.0, 0.5))];
        let html = chart.line("p50", "p50", points).html();
        assert!(html.contains(r#"d="M46.0 196.0h0L127.0 10.0M370.0 103.0h0""#), "{html}");
        assert!(html.contains("a &lt; b") && !html.contains("a < b"));
    }
}
