//! What a text means, as an upstream of the user's choice says: a call of Tidegate's own.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::EmbeddingsConfig;
use crate::call::Call;
use crate::exchange::{Exchange, Ours};
use crate::export::metrics::lock;
use crate::head::{Fields, RequestHead, Target};
use crate::own_call;
use crate::route;
use crate::upstream::{Forward, Upstream};
use crate::whole;

/// For how long nothing is asked of a server that failed: calls wait for it.
const PAUSE: Duration = Duration::from_secs(10);
/// The largest answer that is read: no embedding has more.
const ANSWER: u64 = 1 << 20;
/// Statuses of the caller's kind that are about no one text: whatever is asked next gets them too.
const OF_ALL: [u16; 6] = [401, 403, 404, 405, 408, 429];
/// The most numbers that an embedding may have.
const DIMENSIONS: usize = 16_384;

/// A direction: numbers whose squares add up to one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Vector(Box<[f32]>);

/// Until when nothing is asked of the servers of embeddings, by the names of those that failed; all
/// routes and workers together.
#[derive(Clone, Debug, Default)]
pub(in crate::layer::cache) struct Pauses(Arc<Mutex<BTreeMap<Box<str>, Instant>>>);

/// Asks for embeddings.
#[derive(Debug)]
pub(super) struct Embedder {
    pub(super) config: EmbeddingsConfig,
    upstream: Rc<Upstream>,
    route: Arc<str>,
    pauses: Pauses,
}

/// What is asked of the server.
#[derive(Serialize)]
struct Asked<'a> {
    model: &'a str,
    input: &'a str,
}

/// What it answers, as far as that is needed.
#[derive(Deserialize)]
struct Answer {
    data: [Embedding; 1],
}

#[derive(Deserialize)]
struct Embedding {
    embedding: Vec<f32>,
}

// === impl Embedder ===

impl Embedder {
    pub(super) fn new(
        config: &EmbeddingsConfig,
        upstream: &Rc<Upstream>,
        route: &str,
        pauses: Pauses,
    ) -> Self {
        Self { config: config.clone(), upstream: upstream.clone(), route: route.into(), pauses }
    }

    /// What this text of a call means; nothing where that cannot be had now.
    pub(super) async fn vector(&self, call: &Call, text: &str) -> Option<Vector> {
        let upstream = &*self.config.upstream;
        if text.len() as u64 > self.config.text.as_u64() || self.pauses.is_on(upstream) {
            return None;
        }
        let answer = self.ask(call, text).await;
        if answer.as_ref().is_some_and(|(status, _)| is_about_one_text(*status)) {
            return None;
        }
        let vector = answer.and_then(|(status, answer)| vector_of(status, &answer));
        if vector.is_none() {
            self.pauses.begin(upstream);
            let pause_s = PAUSE.as_secs();
            tracing::warn!(%upstream, pause_s, "no embedding: until then questions are compared as texts alone");
        }
        vector
    }

    async fn ask(&self, call: &Call, text: &str) -> Option<(u16, Bytes)> {
        let asked = Asked { model: &self.config.model, input: text };
        let body: Bytes = serde_json::to_vec(&asked).expect("text can be written").into();
        let head = self.head();
        let (recorder, activity) = call.notes.carriers();
        let of_call = |record: &mut tidegate_wire::Record| {
            (record.caller.clone(), record.trace_id, record.span_id, record.is_sampled)
        };
        let (caller, trace_id, span_id, is_sampled) = call.notes.record(of_call);
        let ours = Ours {
            trace_id,
            parent_span_id: Some(span_id),
            is_sampled,
            upstream: self.upstream.spec.name.clone(),
            model: self.upstream.spec.model.clone(),
        };
        let exchange = Exchange::ours(&head, route::shape(&head), ours, recorder, activity);
        exchange.notes().record(|record| {
            record.embedding = Some(true);
            record.route = Some(self.route.clone());
            record.caller = caller;
        });
        let mut own = Call::of_ours(head, exchange.notes());
        whole::put(&mut own, body);
        let end = Forward { upstream: self.upstream.clone() };
        own_call::ask(end, own, self.config.time.0, ANSWER).await
    }

    fn head(&self) -> RequestHead {
        let fields = [("content-type", "application/json"), ("accept", "application/json")];
        RequestHead {
            method: http::Method::POST,
            target: Target::new(Bytes::from(self.config.path.clone())),
            authority: Bytes::new(),
            version: http::Version::HTTP_11,
            upgrades: false,
            is_absolute: false,
            meant: None,
            shown: None,
            fields: Fields::of(&fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()))),
        }
    }
}

/// Whether an answer says that this text is none for its server, too long as a rule: others may be.
fn is_about_one_text(status: u16) -> bool {
    (400..500).contains(&status) && !OF_ALL.contains(&status)
}

fn vector_of(status: u16, answer: &[u8]) -> Option<Vector> {
    let answer = (status == 200).then_some(answer)?;
    let Answer { data: [Embedding { embedding }] } = serde_json::from_slice(answer).ok()?;
    Vector::of(embedding)
}

// === impl Pauses ===

impl Pauses {
    fn begin(&self, upstream: &str) {
        let now = Instant::now();
        let mut pauses = lock(&self.0);
        pauses.retain(|_, until| now < *until);
        pauses.insert(upstream.into(), now + PAUSE);
    }

    /// Whether nothing is asked of this one now.
    fn is_on(&self, upstream: &str) -> bool {
        lock(&self.0).get(upstream).is_some_and(|until| Instant::now() < *until)
    }

    /// Whether nothing is asked of some server now.
    pub(in crate::layer::cache) fn are_any(&self) -> bool {
        lock(&self.0).values().any(|until| Instant::now() < *until)
    }
}

// === impl Vector ===

impl Vector {
    /// The direction of these numbers; nothing where they have none.
    pub(super) fn of(mut values: Vec<f32>) -> Option<Self> {
        let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if !length.is_finite() || length == 0.0 || values.len() > DIMENSIONS {
            return None;
        }
        values.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        Some(Self(values.into()))
    }

    /// The cosine of the angle between two; nothing where they are of two models.
    pub(super) fn cosine(&self, other: &Self) -> Option<f64> {
        /// Sums that are added up side by side, which a processor does at once.
        const LANES: usize = 16;
        if self.0.len() != other.0.len() {
            return None;
        }
        let (mine, theirs) = (self.0.chunks_exact(LANES), other.0.chunks_exact(LANES));
        let rest = mine.remainder().iter().zip(theirs.remainder());
        let rest: f32 = rest.map(|(one, other)| one * other).sum();
        let mut sums = [0_f32; LANES];
        for (mine, theirs) in mine.zip(theirs) {
            for lane in 0..LANES {
                sums[lane] += mine[lane] * theirs[lane];
            }
        }
        Some(f64::from(sums.iter().sum::<f32>() + rest).clamp(-1.0, 1.0))
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_of_two_directions_is_that_of_the_angle_between_them() {
        let of = |values: Vec<f32>| Vector::of(values).expect("it has a length");
        let long = |sign: f32| of((1..=1536).map(|n| sign * n as f32).collect());
        let cosine = |one: &Vector, other: &Vector| one.cosine(other).expect("as long");
        assert!((cosine(&long(1.0), &long(1.0)) - 1.0).abs() < 1e-6);
        assert!((cosine(&long(1.0), &long(-1.0)) + 1.0).abs() < 1e-6);
        let (x, y, between) = (of(vec![2.0, 0.0]), of(vec![0.0, 3.0]), of(vec![1.0, 1.0]));
        assert!(cosine(&x, &y).abs() < 1e-6);
        assert!((cosine(&x, &between) - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-6);
        assert_eq!(x.cosine(&long(1.0)), None, "they are of two models");
    }

    #[test]
    fn what_has_no_direction_is_no_vector() {
        for values in [vec![], vec![0.0, 0.0], vec![f32::NAN], vec![f32::INFINITY, 1.0]] {
            assert_eq!(Vector::of(values), None);
        }
    }
}
