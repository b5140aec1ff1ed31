//! Gives a call the answer that an equal one of the same caller got before.
//!
//! Only what asks a model and leaves nothing behind is looked up, and only answers that came to a
//! good end are kept. Who asks is part of what must be equal: nobody gets what another was told.
//! Whatever else is said here of an answer, its caller gets it as the upstream gave it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidegate_wire::{CacheSource, Cached};
use tower::ServiceExt;

use crate::bypass::Bypass;
use crate::call::{Call, Failure, Reply, ReplyBody, RequestBody};
use crate::config::{Config, RouteConfig};
use crate::error::Error;
use crate::exchange::Notes;
use crate::generation::Generation;
use crate::head::{Fields, ResponseHead};
use crate::hold::Keeping;
use crate::layer::{Below, Policy};
use crate::route::Upstreams;
use crate::split::Way;
use crate::stack::LocalFuture;
use crate::verdict::{Again, Verdict};
use crate::whole;

mod admission;
mod alike;
mod canonical;
mod config;
mod elsewhere;
mod entry;
mod flight;
mod key;
mod memory;
mod recording;
mod replay;
mod sealed;
mod shared;
mod shared_reply;
mod sync;
mod tally;
mod wish;

pub use alike::{AlikeConfig, EmbeddingsConfig};
pub use config::{Allow, CacheConfig, SharedCacheConfig};
pub(crate) use recording::Recording;
pub(crate) use replay::Replay;
pub(crate) use shared::Caches;
pub(crate) use shared_reply::SharedReply;

use admission::Reason;
use alike::{Alike, Asking, Match};
use canonical::Document;
use entry::Entry;
use flight::{Answer, Follower, Kept, Lead};
use key::{Asked, Key};
use shared::CacheOfRoute;
use wish::Wish;

/// The field by which an answer says that it was given before.
const FIELD: &str = "x-tidegate-cache";

/// Leaders that one call follows: after so many have failed it asks alone.
const MAX_LEADERS: usize = 3;

/// Answers calls from what was kept; absent where a route keeps nothing.
#[derive(Clone, Debug)]
pub(crate) struct CacheLayer(Option<Rc<Caching>>);

/// What one finds who looks for an equal call on its way.
enum Joined {
    /// None: this call asks.
    Lead(Lead),
    /// One that has just ended: its answer is kept.
    Entry(Arc<Entry>),
    /// One whose answer has begun.
    Answer(Follower, Arc<Answer>),
}

/// The cache of one route, as one worker knows it.
#[derive(Debug)]
pub(crate) struct Caching {
    config: CacheConfig,
    shared: CacheOfRoute,
    /// The route and the upstreams behind it, with all that is configured of them.
    place: Box<[u8]>,
    /// Whether callers' credentials end here, wherever the call goes.
    is_signed_here: bool,
    keeping: Keeping,
    /// Absent where answers go to equal calls alone.
    alike: Option<Rc<Alike>>,
}

/// What a call is known by.
struct Keys {
    own: Key,
    /// What it asks, where others may ask the same.
    asking: Option<Asking>,
}

impl CacheLayer {
    /// The cache of one way of a route.
    pub(crate) fn new(generation: &Generation, way: &Way, upstreams: &Upstreams) -> Self {
        let Generation { config, caches, held, .. } = generation;
        let route = &way.route;
        let caching = caches.as_ref().zip(route.cache.as_ref()).map(|(caches, cache)| {
            let shared = caches.of_route(route.name());
            Rc::new(Caching {
                config: cache.clone(),
                place: place(config, way),
                is_signed_here: route.leads_to().all(|name| upstreams[name].has_credential()),
                alike: Alike::new(way, upstreams, &shared).map(Rc::new),
                shared,
                keeping: Keeping::new(config, held),
            })
        });
        Self(caching)
    }
}

/// What an answer depends on beside its call: where it goes. What was kept before that changed is
/// nobody's any more.
fn place(config: &Config, way: &Way) -> Box<[u8]> {
    let Way { name, names, route, .. } = way;
    let upstreams: Vec<_> = route.leads_to().map(|name| config.upstreams.get(name)).collect();
    // Who copies calls changes no answer.
    let route = RouteConfig { shadow: None, ..route.clone() };
    let place = serde_json::to_vec(&(name, names, route, upstreams));
    place.expect("what was read from a file can be written").into()
}

impl<S: Below> Policy<S> for CacheLayer {
    fn call(&self, below: &mut S, call: Call) -> LocalFuture {
        let Some(caching) = &self.0 else { return below.call(call) };
        let wish = Wish::of(&call.head.fields);
        let may_look = match admission::of_head(&call, caching.is_signed_here) {
            Ok(()) if wish.no_store => Err(Reason::NoStore),
            result => result,
        };
        match may_look {
            Ok(()) => Box::pin(caching.clone().serve(below.clone(), call, wish)),
            Err(reason) => {
                caching.pass_by(&call, reason);
                match wish.only_if_cached {
                    true => Box::pin(std::future::ready(Err(Error::NotCached.into()))),
                    false => below.call(call),
                }
            }
        }
    }

    /// Whether it would have had an answer shows only once the body is held, which it is not.
    fn look_on(&self, below: &mut S, call: Call, _: Rc<Bypass>) -> LocalFuture {
        below.call(call)
    }
}

// === impl Caching ===

impl Caching {
    async fn serve<S: Below>(
        self: Rc<Self>,
        below: S,
        mut call: Call,
        wish: Wish,
    ) -> Result<Reply, Failure> {
        let keys = match whole::read_ahead(&mut call, &self.keeping).await? {
            true => whole::look(&call, |body| self.keys(&call, body)),
            false => Err(Reason::BodyTooLarge),
        };
        let mut keys = match keys {
            Ok(keys) => keys,
            Err(reason) => {
                self.pass_by(&call, reason);
                return match wish.only_if_cached {
                    true => Err(Error::NotCached.into()),
                    false => below.oneshot(call).await,
                };
            }
        };
        whole::take(&mut call);
        let found = if wish.no_cache { None } else { self.shared.get(&keys.own) };
        if let Some(entry) = found.as_ref().filter(|entry| self.is_fresh(entry, &wish)) {
            return Ok(self.answer(entry, Cached::of(CacheSource::Hit), &call));
        }
        if wish.only_if_cached {
            let found = self.look_further(&keys, &wish).await;
            return found
                .map(|(entry, cached)| self.answer(&entry, cached, &call))
                .ok_or(Error::NotCached.into());
        }
        note(&call, CacheSource::Miss);
        let stale = found.filter(|_| self.config.stale_if_error.is_some());
        let joined = match wish.no_cache || !self.config.single_flight {
            true => Joined::Lead(self.shared.flights().alone(self.config.entry.as_u64())),
            false => self.join(&keys.own, &wish).await,
        };
        match joined {
            Joined::Lead(lead) => {
                let mut found = self.look_further(&keys, &wish).await;
                if found.is_none() {
                    found = self.look_for_similar(&mut keys, &wish, &call).await?;
                }
                match found {
                    Some((entry, cached)) => Ok(self.answer(&entry, cached, &call)),
                    None => self.ask(below, call, keys, stale, lead).await,
                }
            }
            Joined::Entry(entry) => Ok(self.answer(&entry, Cached::of(CacheSource::Hit), &call)),
            Joined::Answer(follower, answer) => Ok(share(follower, &answer, &call)),
        }
    }

    /// The answer that other sidecars keep: those who follow find it in memory, where it is from now on.
    /// Else one that is known to be an answer to this text.
    async fn look_further(&self, keys: &Keys, wish: &Wish) -> Option<(Arc<Entry>, Cached)> {
        if wish.no_cache {
            return None;
        }
        let entry = self.shared.get_elsewhere(&keys.own, self.config.entry.as_u64()).await;
        if let Some(entry) = entry.filter(|entry| self.is_fresh(entry, wish)) {
            return Some((entry, Cached::of(CacheSource::Hit)));
        }
        let known = self.alike.as_ref()?.known(&self.shared, keys.asking.as_ref()?)?;
        self.is_fresh(&known.entry, wish).then(|| matched(known))
    }

    /// The answer to a question that means nearly the same.
    async fn look_for_similar(
        &self,
        keys: &mut Keys,
        wish: &Wish,
        call: &Call,
    ) -> Result<Option<(Arc<Entry>, Cached)>, Error> {
        match (&self.alike, &mut keys.asking) {
            (Some(alike), Some(asking)) if !wish.no_cache => {
                let is_good = |entry: &Entry| self.is_fresh(entry, wish);
                let found = alike.similar(&self.shared, call, asking, is_good).await?;
                Ok(found.map(matched))
            }
            _ => Ok(None),
        }
    }

    fn is_fresh(&self, entry: &Entry, wish: &Wish) -> bool {
        let age = entry.age();
        age <= self.config.ttl.0 && wish.takes(age)
    }

    /// Waits for the answer to an equal call, where one is on its way.
    async fn join(&self, key: &Key, wish: &Wish) -> Joined {
        let (flights, most) = (self.shared.flights(), self.config.entry.as_u64());
        let is_taken = |age: Duration| age <= self.config.ttl.0 && wish.takes(age);
        for _ in 0..MAX_LEADERS {
            let follower = match flights.enter(key, most, is_taken) {
                flight::Entry::Follow(follower) => follower,
                flight::Entry::Lead(lead) => {
                    // The last one may have ended between the look into memory and now.
                    let kept = self.shared.get(key).filter(|entry| self.is_fresh(entry, wish));
                    return kept.map_or(Joined::Lead(lead), Joined::Entry);
                }
            };
            if let Some(answer) = poll_fn(|cx| follower.poll_answer(cx)).await {
                return Joined::Answer(follower, answer);
            }
        }
        Joined::Lead(flights.alone(most))
    }

    /// What a call is known by that may have a kept answer.
    fn keys(&self, call: &Call, body: &[u8]) -> Result<Keys, Reason> {
        call.notes.request_known(body);
        admission::of_notes(&call.notes, self.config.allow)?;
        let document = Document::read(body)?;
        admission::of_body(call.head.target.path(), &document)?;
        let caller = call.notes.proven_caller();
        let asked = Asked {
            place: &self.place,
            caller: caller.as_deref(),
            is_signed_here: self.is_signed_here,
            head: &call.head,
            ignored: &self.config.ignore_headers,
            body: document.text(),
        };
        let secret = self.shared.secret();
        let asking = self.alike.as_ref().filter(|_| asks_by_text(call));
        let asking = asking.and_then(|alike| alike.asking(&asked, &document, secret));
        Ok(Keys { own: Key::of(&asked, secret), asking })
    }

    /// Asks the upstream, and keeps its answer where that turns out to be good.
    async fn ask<S: Below>(
        &self,
        below: S,
        call: Call,
        keys: Keys,
        stale: Option<Arc<Entry>>,
        lead: Lead,
    ) -> Result<Reply, Failure> {
        let spare = stale.as_ref().and_then(|_| call.spare());
        let notes = call.notes.clone();
        notes.left.stay_for_others(Box::new(lead.others()));
        let mut asked = pin!(below.oneshot(call));
        let result = poll_fn(|cx| {
            let is_forsaken = notes.left.goes_on() && lead.poll_forsaken(cx).is_ready();
            match is_forsaken {
                true => Poll::Ready(Err(Error::CallerLeft.into())),
                false => asked.as_mut().poll(cx),
            }
        })
        .await;
        if let (Some(entry), Some(call)) = (stale, spare)
            && let Some(verdict) = failed(&result, &call)
        {
            drop(result);
            notes.again(verdict);
            return Ok(self.answer(&entry, Cached::of(CacheSource::Stale), &call));
        }
        let Reply { head, body } = result?;
        if let Err(reason) = admission::of_answer(&head, self.config.entry.as_u64()) {
            self.shared.tally.count(reason);
            return Ok(Reply { head, body });
        }
        lead.answer(Answer::new(&head, notes.told_by()));
        self.keep_later(keys, &head, lead.kept(), &notes);
        let body = Recording::new(body, lead, notes, head.fields.content_length());
        Ok(Reply { head, body: ReplyBody::Recording(Box::new(body)) })
    }

    /// Keeps the answer once its record says that it was good.
    fn keep_later(&self, keys: Keys, head: &ResponseHead, kept: Kept, notes: &Notes) {
        let (Keys { own: key, asking }, alike) = (keys, self.alike.clone());
        let (shared, config, head) = (self.shared.clone(), self.config.clone(), head.clone());
        let dialect = notes.dialect();
        notes.when_closed(Box::new(move |record| {
            let pieces =
                admission::of_record(record, dialect, &config).and_then(|()| kept.pieces());
            match pieces {
                Ok(pieces) => {
                    let entry = Entry::new(key, &head, &pieces, record, config.keep());
                    shared.put(&key, entry.into());
                    if let (Some(alike), Some(asking)) = (alike, asking) {
                        alike.remember(shared.alike(), asking, key);
                    }
                }
                Err(reason) => shared.tally.count(reason),
            }
        }));
    }

    /// A kept answer, as it came but for the fields that say so.
    fn answer(&self, entry: &Arc<Entry>, cached: Cached, call: &Call) -> Reply {
        let notes = &call.notes;
        if let RequestBody::Full(body) = &*call.body {
            notes.request_chunk(body);
        }
        let age = entry.age();
        let seconds = age.as_secs().to_string();
        let word = cached.source.map_or("", CacheSource::as_str);
        let similarity =
            cached.similarity.map(|similarity| format!("; similarity={similarity:.4}"));
        let said = format!("{word}; age={seconds}{}", similarity.unwrap_or_default());
        notes.given_again(&entry.told, cached, age);
        let length = entry.body.len().to_string();
        let mut lines: Vec<_> = entry.head.fields.iter().collect();
        lines.push((FIELD.as_bytes(), said.as_bytes()));
        lines.push((b"age", seconds.as_bytes()));
        if !entry.is_stream {
            lines.push((b"content-length", length.as_bytes()));
        }
        let fields = Fields::of(&lines);
        let head = ResponseHead { fields, reason: entry.head.reason.clone(), ..entry.head };
        notes.replays(&head);
        let body = match entry.is_stream {
            true => {
                let pace = self.config.pace.map(|pace| pace.0);
                ReplyBody::Replay(Box::new(Replay::new(entry.clone(), notes.clone(), pace)))
            }
            false => {
                notes.replayed(&entry.body);
                ReplyBody::Full(entry.body.clone())
            }
        };
        Reply { head, body }
    }

    /// The cache has no say in this call.
    fn pass_by(&self, call: &Call, reason: Reason) {
        self.shared.tally.count(reason);
        let cached = Cached::bypass(reason.as_str());
        call.notes.record(|record| record.cached = Some(cached.into()));
    }
}

/// The answer to an equal call, as it comes.
fn share(follower: Follower, answer: &Answer, call: &Call) -> Reply {
    let notes = &call.notes;
    if let RequestBody::Full(body) = &*call.body {
        notes.request_chunk(body);
    }
    let fields = answer.head.fields.with(FIELD, CacheSource::Shared.as_str().as_bytes());
    let head = ResponseHead { fields, reason: answer.head.reason.clone(), ..answer.head };
    notes.shares(&answer.told_by, &head);
    let body = SharedReply::new(follower, notes.clone());
    Reply { head, body: ReplyBody::Shared(Box::new(body)) }
}

/// An answer that was found, and what is noted of it.
fn matched(found: Match) -> (Arc<Entry>, Cached) {
    let (similarity, threshold) = found.similarity.unzip();
    (found.entry.clone(), Cached { similarity, threshold, ..Cached::of(found.source()) })
}

/// Whether what a call asks is said by text: an embedding of nearly the same is another one.
fn asks_by_text(call: &Call) -> bool {
    call.notes.observer(|observer| {
        let operation = observer.shape().operation.as_deref();
        operation.is_some_and(|operation| admission::TELLING.contains(&operation))
    })
}

/// Writes down what became of the call here.
fn note(call: &Call, source: CacheSource) {
    let cached = Cached::of(source);
    call.notes.record(|record| record.cached = Some(cached.into()));
}

/// What the upstream's failure says of it, where that is no fault of the caller.
fn failed(result: &Result<Reply, Failure>, call: &Call) -> Option<Verdict> {
    let verdict = match result {
        Err(Failure { error: Error::CallerLeft, .. }) => return None,
        Err(Failure { error, unsent }) => Verdict::of_error(error, unsent.is_some()),
        Ok(_) => call.notes.settled().or_else(|| call.notes.verdict())?,
    };
    let is_fault =
        matches!(verdict.again, Again::Unsent | Again::Soon | Again::Later | Again::Elsewhere);
    is_fault.then_some(verdict)
}
