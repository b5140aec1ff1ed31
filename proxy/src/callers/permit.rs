//! Which models a caller may ask for.
//!
//! What goes on must be what was looked at. So where the model stands in the body, all of that is
//! read before any of it goes on, and one that names it twice, or in a way that servers read unlike,
//! names none.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidegate_wire::glob;

use super::Identity;
use crate::call::{Call, RequestBody};
use crate::error::Error;
use crate::hold::Keeping;
use crate::whole;

impl Identity {
    /// Whether the caller may make this call, to an upstream that serves this model where a call names
    /// none. Who may not ask for all models may look at what there is, and make no call whose model
    /// cannot be told.
    pub(crate) async fn permit(
        &self,
        call: &mut Call,
        served: Option<&str>,
        keeping: &Keeping,
    ) -> Result<(), Error> {
        let Some(models) = self.models().filter(|_| !call.only_looks()) else { return Ok(()) };
        let in_path = call.notes.observer(|observer| observer.shape().model.clone());
        let asked = match in_path {
            Some(model) => Some(model.to_string()),
            None => self.in_body(call, keeping).await?,
        };
        let refused =
            |model: Option<String>| Error::ModelNotAllowed { caller: self.name.clone(), model };
        match asked.as_deref().or(served) {
            Some(model) if models.iter().any(|pattern| glob(pattern, model)) => Ok(()),
            model => Err(refused(model.map(str::to_owned))),
        }
    }

    /// The model that the body names; absent where it plainly names none.
    async fn in_body(&self, call: &mut Call, keeping: &Keeping) -> Result<Option<String>, Error> {
        let unclear = || Error::ModelNotAllowed { caller: self.name.clone(), model: None };
        if matches!(*call.body, RequestBody::Empty) {
            return Ok(None);
        }
        let is_plain = call.head.fields.get("content-encoding").is_none() && !call.is_grpc();
        if !is_plain || !whole::read_ahead(call, keeping).await? {
            return Err(unclear());
        }
        let named = whole::look(call, |body| {
            call.notes.request_known(body);
            serde_json::from_slice::<Named>(body)
        });
        named.map(|Named(model)| model).map_err(|_| unclear())
    }
}

/// The model that an object names.
struct Named(Option<String>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that names its model once")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut model = None;
                while let Some(key) = map.next_key::<String>()? {
                    // Some servers take `Model` for `model`.
                    match key.eq_ignore_ascii_case("model") {
                        false => _ = map.next_value::<IgnoredAny>()?,
                        true if key == "model" && model.is_none() => {
                            model = Some(map.next_value()?)
                        }
                        true => return Err(serde::de::Error::custom("it is named twice")),
                    }
                }
                Ok(Named(model))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_one_model_or_none_that_can_be_told() {
        for (body, model) in [
            (r#"{"model":"a","x":{"model":"b"}}"#, Ok(Some("a"))),
            (r#"{"x":1}"#, Ok(None)),
            (r#"{"mod\u0065l":"a"}"#, Ok(Some("a"))),
            (r#"{"model":"a","model":"a"}"#, Err(())),
            (r#"{"model":"a","mod\u0065l":"b"}"#, Err(())),
            (r#"{"model":"a","Model":"b"}"#, Err(())),
            (r#"{"MODEL":"b"}"#, Err(())),
            (r#"{"model":null}"#, Err(())),
            (r#"{"model":["a"]}"#, Err(())),
            (r#"["model"]"#, Err(())),
            ("{\"model\":\"a\"} {}", Err(())),
            ("model=a", Err(())),
        ] {
            let named = serde_json::from_slice::<Named>(body.as_bytes());
            let named = named.map(|Named(model)| model).map_err(drop);
            assert_eq!(named.as_ref().map(Option::as_deref).map_err(|_| ()), model, "{body}");
        }
    }
}
