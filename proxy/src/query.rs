//! What the query of a target asks: names and values, decoded.

use percent_encoding::percent_decode_str;

/// Pairs in their order, such as `by=model,route&window=5m`. A `+` stands for itself, as in a time with
/// its zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// That of what stands behind the `?`, if there is one.
    pub(crate) fn of(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        Self(pairs.map(pair).collect())
    }

    /// The value of a name; the first where it has several.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded_and_what_parts_them_is_not() {
        let query = Query::of(Some("model=gemini-%2A&by=model%2Croute&&a%3Db=c%26d&since=1+2&on"));
        let pairs: Vec<_> = query.iter().collect();
        let expected = [
            ("model", "gemini-*"),
            ("by", "model,route"),
            ("a=b", "c&d"),
            ("since", "1+2"),
            ("on", ""),
        ];
        assert_eq!(pairs, expected);
        assert_eq!(Query::of(None), Query::of(Some("")));
    }

    #[test]
    fn the_first_of_several_values_counts() {
        let query = Query::of(Some("way=proxy&way=base-url"));
        assert_eq!((query.value("way"), query.value("for")), (Some("proxy"), None));
    }
}
