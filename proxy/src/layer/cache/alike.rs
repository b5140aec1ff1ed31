//! Answers to calls that are not equal to one before, but ask the same: by a text that differs in how
//! it is written down alone, or by one that means nearly the same.
//!
//! Only the text of the last turn may differ. All else must be equal, as for any kept answer: who
//! asks, which model, with which parameters, tools and turns before.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_wire::CacheSource;

use super::canonical::Document;
use super::entry::Entry;
use super::key::{Asked, Id, Key, Secret};
use super::shared::CacheOfRoute;
use crate::call::Call;
use crate::config::{Size, Span};
use crate::error::Error;
use crate::route::Upstreams;
use crate::split::Way;

mod embed;
mod index;
mod normal;
mod question;

pub(super) use embed::Pauses;
pub(super) use index::Index;

use embed::{Embedder, Vector};
use index::{Found, Known};
use question::{Question, numbers};

/// Which calls ask the same. Texts that differ in Unicode's form of a letter, in spaces within a line
/// and in blank lines alone always do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlikeConfig {
    /// By which embeddings texts are compared; where absent, nothing else is the same.
    pub embeddings: Option<EmbeddingsConfig>,
}

/// Embeddings of questions, from a server that speaks OpenAI's interface for them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingsConfig {
    /// The name of the upstream that makes them; callers' credentials never go there.
    pub upstream: String,
    /// The model that makes them.
    pub model: String,
    /// The path at which they are made.
    #[serde(default = "path")]
    pub path: String,
    /// The cosine of two embeddings from which on their texts ask the same.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// How long one may take; without it the call asks its own upstream.
    #[serde(default = "time")]
    pub time: Span,
    /// The longest text; one that is longer is compared with none.
    #[serde(default = "text")]
    pub text: Size,
    /// Texts that one is compared with, the latest ones with all else equal.
    #[serde(default = "questions")]
    pub questions: std::num::NonZeroU32,
}

fn path() -> String {
    "/v1/embeddings".to_owned()
}

fn threshold() -> f64 {
    0.95
}

fn time() -> Span {
    Span(Duration::from_millis(500))
}

fn text() -> Size {
    Size::kib(8)
}

fn questions() -> std::num::NonZeroU32 {
    std::num::NonZeroU32::new(500).expect("not zero")
}

/// How one worker finds calls that ask the same, on one route.
#[derive(Debug)]
pub(super) struct Alike {
    embedder: Option<Embedder>,
}

/// What a call asks, and what must be equal of another that asks the same.
pub(super) struct Asking {
    /// The key of all calls whose text is the same but for how it is written down.
    same: Key,
    /// All but the text.
    around: Id,
    text: String,
    /// What it means, as far as that was found out.
    vector: Option<Vector>,
}

/// An answer to a call that asks the same.
pub(super) struct Match {
    pub(super) entry: Arc<Entry>,
    /// How nearly it asks the same, and what would have been enough; absent where it is the same text.
    pub(super) similarity: Option<(f64, f64)>,
}

// === impl EmbeddingsConfig ===

impl EmbeddingsConfig {
    /// What one key cannot say of itself: the key, and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let Self { path, threshold, .. } = self;
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(("path", format!("`{path}` is no path: it begins with `/`")));
        }
        match *threshold > 0.0 && *threshold <= 1.0 {
            true => Ok(()),
            false => Err(("threshold", format!("`{threshold}` is not above 0 and at most 1"))),
        }
    }
}

// === impl Alike ===

impl Alike {
    /// Absent where a route's answers go to equal calls alone.
    pub(super) fn new(way: &Way, upstreams: &Upstreams, shared: &CacheOfRoute) -> Option<Self> {
        let config = way.route.cache.as_ref()?.alike.as_ref()?;
        let embedder = config.embeddings.as_ref().map(|config| {
            let upstream: &Rc<_> = &upstreams[&config.upstream];
            Embedder::new(config, upstream, way.route.name(), shared.pauses())
        });
        Some(Self { embedder })
    }

    /// What this call asks; nothing where that is no text.
    pub(super) fn asking(
        &self,
        asked: &Asked<'_>,
        document: &Document,
        secret: &Secret,
    ) -> Option<Asking> {
        let question = Question::of(document)?;
        Some(Asking {
            same: Key::of(&Asked { body: &question.whole(), ..*asked }, secret),
            around: Key::of(&Asked { body: &question.around, ..*asked }, secret).id,
            text: question.text(),
            vector: None,
        })
    }

    /// An answer that is known to be one to this text, however that is written down.
    pub(super) fn known(&self, shared: &CacheOfRoute, asking: &Asking) -> Option<Match> {
        let Found { key, similarity } = shared.alike().same(&asking.same)?;
        let similarity = similarity.map(|similarity| (similarity, self.threshold()));
        shared.get(&key).map(|entry| Match { entry, similarity })
    }

    /// An answer to a text that means nearly the same, which takes the time of an embedding. Its caller
    /// may leave meanwhile.
    pub(super) async fn similar(
        &self,
        shared: &CacheOfRoute,
        call: &Call,
        asking: &mut Asking,
        is_good: impl Fn(&Entry) -> bool,
    ) -> Result<Option<Match>, Error> {
        let Some(embedder) = &self.embedder else { return Ok(None) };
        asking.vector = call.or_left(embedder.vector(call, &asking.text)).await?;
        let Some(vector) = &asking.vector else { return Ok(None) };
        let threshold = embedder.config.threshold;
        let numbers = numbers(&asking.text);
        let get = |key: &Key| shared.get(key).filter(|entry| is_good(entry));
        let nearest = shared.alike().nearest(&asking.around, vector, &numbers, threshold, get);
        Ok(nearest.map(|(found, entry)| {
            shared.alike().put_same(&asking.same, found);
            Match { entry, similarity: found.similarity.map(|found| (found, threshold)) }
        }))
    }

    /// Remembers that the answer to this call is kept under this key.
    pub(super) fn remember(&self, index: &Index, asking: Asking, key: Key) {
        let Asking { same, around, text, vector } = asking;
        index.put_same(&same, Found { key, similarity: None });
        if let (Some(embedder), Some(vector)) = (&self.embedder, vector) {
            let known = Known { numbers: numbers(&text), vector, key };
            index.put(around, known, embedder.config.questions.get() as usize);
        }
    }

    fn threshold(&self) -> f64 {
        self.embedder.as_ref().map_or(1.0, |embedder| embedder.config.threshold)
    }
}

// === impl Match ===

impl Match {
    /// The word for how it was found.
    pub(super) fn source(&self) -> CacheSource {
        match self.similarity {
            Some(_) => CacheSource::Similar,
            None => CacheSource::Normalised,
        }
    }
}
