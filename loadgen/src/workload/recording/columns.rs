//! Tables of comma-separated values: what the header names, found in each line.

use std::borrow::Cow;

use super::format::{Reading, Said};
use super::{Asked, Row};
use crate::workload::lengths::Lengths;

/// A trace that says of each call when it came, and how many tokens went in and out.
pub(super) struct Trace {
    /// What the header calls these three.
    pub(super) columns: [&'static str; 3],
    /// Reads when it came, in nanoseconds.
    pub(super) moment: fn(&str) -> Option<i64>,
    /// What that is, for whoever wrote something else.
    pub(super) moment_is: &'static str,
}

/// Where the columns that are needed stand.
#[derive(Clone, Debug)]
pub(super) struct Columns<const N: usize>([usize; N]);

// === impl Trace ===

impl Trace {
    pub(super) fn begins(&self, line: &[u8]) -> bool {
        Columns::find(line, self.columns).is_ok()
    }

    pub(super) fn reading(&'static self, header: &[u8]) -> Result<Reading, String> {
        let columns = Columns::find(header, self.columns)?;
        Ok(Box::new(move |line| self.read(&columns, line)))
    }

    fn read(&self, columns: &Columns<3>, line: &[u8]) -> Result<Said, String> {
        if line.trim_ascii().is_empty() {
            return Ok(Said::Nothing);
        }
        let [at, input, output] = columns.of(line)?;
        let moment =
            (self.moment)(&at).ok_or_else(|| format!("`{at}` is no {}", self.moment_is))?;
        let lengths = Lengths {
            input: tokens(self.columns[1], &input)?,
            output: tokens(self.columns[2], &output)?,
            ..Lengths::default()
        };
        Ok(Said::Call(Box::new(Row { at: Some(moment), asked: Asked::Lengths(lengths) })))
    }
}

// === impl Columns ===

impl<const N: usize> Columns<N> {
    /// Finds these in a header; letters may be of either case.
    pub(super) fn find(header: &[u8], names: [&str; N]) -> Result<Self, String> {
        let header = fields(header);
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            let is_it = |field: &Cow<'_, str>| field.eq_ignore_ascii_case(name);
            *place = header.iter().position(is_it).ok_or_else(|| {
                format!("the first line has no column `{name}`; expected are {}", names.join(", "))
            })?;
        }
        Ok(Self(places))
    }

    /// What a line has in them.
    pub(super) fn of<'a>(&self, line: &'a [u8]) -> Result<[Cow<'a, str>; N], String> {
        let fields = fields(line);
        let field = |place: usize| fields.get(place).cloned();
        let mut found = self.0.map(field);
        let missing = found.iter().position(Option::is_none);
        match missing {
            None => Ok(std::array::from_fn(|at| found[at].take().unwrap_or_default())),
            Some(_) => Err(format!("it has {} fields, fewer than the header", fields.len())),
        }
    }
}

/// A whole number of tokens; some tools write them as `374.0`.
fn tokens(name: &str, text: &str) -> Result<u32, String> {
    let whole = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|byte| byte == b'0'));
    let number = whole.map_or(text, |(whole, _)| whole);
    let tokens = number.parse().map_err(|_| format!("`{text}` is no number of {name}"))?;
    super::bounded(name, tokens)
}

fn fields(line: &[u8]) -> Vec<Cow<'_, str>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let end = end_of_field(rest);
        fields.push(unquoted(rest[..end].trim_ascii()));
        match rest.get(end + 1..) {
            Some(more) => rest = more,
            None => return fields,
        }
    }
}

/// Where the comma stands that ends this field, or the end.
fn end_of_field(rest: &[u8]) -> usize {
    let mut in_quotes = false;
    let ends = |byte: &u8| {
        in_quotes ^= *byte == b'"';
        *byte == b',' && !in_quotes
    };
    rest.iter().position(ends).unwrap_or(rest.len())
}

fn unquoted(field: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(field);
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => Cow::Owned(inner.replace("\"\"", "\"")),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_may_be_quoted_and_hold_commas() {
        assert_eq!(fields(br#"a, "b,""c""" ,,d"#), ["a", "b,\"c\"", "", "d"]);
        assert_eq!(fields(b""), [""]);
    }

    #[test]
    fn columns_are_found_by_name_wherever_they_stand() {
        let columns = Columns::find(b"x,Two,one", ["One", "two"]).expect("both are there");
        assert_eq!(columns.of(b"a,b,c").expect("a line"), ["c", "b"]);
        assert!(columns.of(b"a,b").expect_err("too short").contains("2 fields"));
        let told = Columns::find(b"x,y", ["One"]).expect_err("none is there");
        assert!(told.contains("no column `One`"), "{told}");
    }
}
