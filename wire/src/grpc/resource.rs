//! The names of Google's resources, which say whose model is asked for, and where.

use crate::Headers;
use crate::dialect::{Path, decoded};

/// The parameters of a `x-goog-request-params` header that name a model's resource (AIP-4222).
const PARAMETERS: [&str; 3] = ["model", "endpoint", "name"];

/// What the name of a resource says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) model: Option<String>,
    pub(crate) publisher: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) project: Option<String>,
}

impl Resource {
    /// Reads `projects/{project}/locations/{location}/publishers/{publisher}/models/{model}`,
    /// `.../endpoints/{endpoint}`, and what is shorter than these.
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(name);
        let after = |word| path.after(word).filter(|part| !part.is_empty()).map(str::to_owned);
        let bare = || (!name.is_empty() && !name.contains('/')).then(|| name.to_owned());
        Self {
            model: after("models").or_else(|| after("endpoints")).or_else(bare),
            publisher: after("publishers"),
            location: after("locations"),
            project: after("projects"),
        }
    }

    /// Reads the header by which Google's clients tell where a call belongs.
    pub(crate) fn of_head(headers: &dyn Headers) -> Option<Self> {
        let parameters = std::str::from_utf8(headers.value("x-goog-request-params")?).ok()?;
        let named = parameters.split('&').filter_map(|parameter| parameter.split_once('='));
        let name =
            named.filter(|(key, _)| PARAMETERS.contains(key)).map(|(_, name)| name).next()?;
        Some(Self::read(&decoded(name))).filter(|resource| resource.model.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, parts: [Option<&str>; 4]) {
        let Resource { model, publisher, location, project } = Resource::read(name);
        let read = [&model, &publisher, &location, &project].map(|part| part.as_deref());
        assert_eq!(read, parts, "{name}");
    }

    #[test]
    fn a_name_says_model_publisher_location_and_project() {
        check(
            "projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash",
            [Some("gemini-2.5-flash"), Some("google"), Some("us-central1"), Some("p")],
        );
        check("projects/p/locations/l/endpoints/42", [Some("42"), None, Some("l"), Some("p")]);
        check("publishers/google/models/m", [Some("m"), Some("google"), None, None]);
        check("models/m", [Some("m"), None, None, None]);
        check("m", [Some("m"), None, None, None]);
        check("", [None; 4]);
        check("projects//locations/", [None; 4]);
    }

    #[test]
    fn the_head_names_it_with_and_without_escapes() {
        for value in [
            "model=projects/p/locations/l/publishers/google/models/m",
            "a=b&endpoint=projects%2Fp%2Flocations%2Fl%2Fpublishers%2Fgoogle%2Fmodels%2Fm",
        ] {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-goog-request-params", value.parse().expect("a value"));
            let resource = Resource::of_head(&headers).expect("a resource");
            assert_eq!(resource.model.as_deref(), Some("m"));
            assert_eq!(resource.location.as_deref(), Some("l"));
        }
        assert_eq!(Resource::of_head(&http::HeaderMap::new()), None);
    }
}
