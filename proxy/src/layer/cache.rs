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
use crate::split::Way;
use crate::stack::LocalFuture;
use crate::verdict::{Again, Verdict};
use crate::whole;

mod admission;
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

pub use config::{Allow, CacheConfig, SharedCacheConfig};
pub(crate) use recording::Recording;
pub(crate) use replay::Replay;
pub(crate) use shared::Caches;
pub(crate) use shared_reply::SharedReply;

use admission::Reason;
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
    /// Whether callers' credentials end here.
    is_signed_here: bool,
    keeping: Keeping,
}

impl CacheLayer {
    /// The cache of one way of a route.
    pub(crate) fn new(generation: &Generation, way: &Way, is_signed_here: bool) -> Self {
        let Generation { config, caches, held, .. } = generation;
        let route = &way.route;
        let caching = caches.as_ref().zip(route.cache.as_ref()).map(|(caches, cache)| {
            Rc::new(Caching {
                config: cache.clone(),
                shared: caches.of_route(route.name()),
                place: place(config, way),
                is_signed_here,
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
        let key = match whole::read_ahead(&mut call, &self.keeping).await? {
            true => whole::look(&call, |body| self.key(&call, body)),
            false => Err(Reason::BodyTooLarge),
        };
        let key = match key {
            Ok(key) => key,
            Err(reason) => {
                self.pass_by(&call, reason);
                return match wish.only_if_cached {
                    true => Err(Error::NotCached.into()),
                    false => below.oneshot(call).await,
                };
            }
        };
        whole::take(&mut call);
        let found = if wish.no_cache { None } else { self.shared.get(&key) };
        if let Some(entry) = found.as_ref().filter(|entry| self.is_fresh(entry, &wish)) {
            return Ok(self.answer(entry, CacheSource::Hit, &call));
        }
        if wish.only_if_cached {
            let found = self.look_elsewhere(&key, &wish).await;
            return found
                .map(|entry| self.answer(&entry, CacheSource::Hit, &call))
                .ok_or(Error::NotCached.into());
        }
        note(&call, CacheSource::Miss);
        let stale = found.filter(|_| self.config.stale_if_error.is_some());
        if wish.no_cache || !self.config.single_flight {
            let lead = self.shared.flights().alone(self.config.entry.as_u64());
            return self.ask(below, call, key, stale, lead).await;
        }
        match self.join(&key, &wish).await {
            Joined::Lead(lead) => match self.look_elsewhere(&key, &wish).await {
                Some(entry) => Ok(self.answer(&entry, CacheSource::Hit, &call)),
                None => self.ask(below, call, key, stale, lead).await,
            },
            Joined::Entry(entry) => Ok(self.answer(&entry, CacheSource::Hit, &call)),
            Joined::Answer(follower, answer) => Ok(share(follower, &answer, &call)),
        }
    }

    /// The answer that other sidecars keep: those who follow find it in memory, where it is from now on.
    async fn look_elsewhere(&self, key: &Key, wish: &Wish) -> Option<Arc<Entry>> {
        if wish.no_cache {
            return None;
        }
        let entry = self.shared.get_elsewhere(key, self.config.entry.as_u64()).await;
        entry.filter(|entry| self.is_fresh(entry, wish))
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

    /// The key of a call that may have a kept answer.
    fn key(&self, call: &Call, body: &[u8]) -> Result<Key, Reason> {
        call.notes.request_known(body);
        admission::of_notes(&call.notes, self.config.allow)?;
        let document = Document::read(body)?;
        admission::of_body(call.head.target.path(), &document)?;
        let caller = call.notes.proven_caller();
        let asked = Asked {
            place: &self.place,
            caller: caller.as_deref(),
            head: &call.head,
            ignored: &self.config.ignore_headers,
            body: &document,
        };
        Ok(Key::of(&asked, self.shared.secret()))
    }

    /// Asks the upstream, and keeps its answer where that turns out to be good.
    async fn ask<S: Below>(
        &self,
        below: S,
        call: Call,
        key: Key,
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
            return Ok(self.answer(&entry, CacheSource::Stale, &call));
        }
        let Reply { head, body } = result?;
        if let Err(reason) = admission::of_answer(&head, self.config.entry.as_u64()) {
            self.shared.tally.count(reason);
            return Ok(Reply { head, body });
        }
        lead.answer(Answer::new(&head, notes.told_by()));
        self.keep_later(key, &head, lead.kept(), &notes);
        let body = Recording::new(body, lead, notes, head.fields.content_length());
        Ok(Reply { head, body: ReplyBody::Recording(Box::new(body)) })
    }

    /// Keeps the answer once its record says that it was good.
    fn keep_later(&self, key: Key, head: &ResponseHead, kept: Kept, notes: &Notes) {
        let (shared, config, head) = (self.shared.clone(), self.config.clone(), head.clone());
        let dialect = notes.dialect();
        notes.when_closed(Box::new(move |record| {
            let pieces =
                admission::of_record(record, dialect, &config).and_then(|()| kept.pieces());
            match pieces {
                Ok(pieces) => {
                    let entry = Entry::new(key, &head, &pieces, record, config.keep());
                    shared.put(&key, entry.into());
                }
                Err(reason) => shared.tally.count(reason),
            }
        }));
    }

    /// A kept answer, as it came but for the fields that say so.
    fn answer(&self, entry: &Arc<Entry>, source: CacheSource, call: &Call) -> Reply {
        let notes = &call.notes;
        if let RequestBody::Full(body) = &call.body {
            notes.request_chunk(body);
        }
        let age = entry.age();
        notes.given_again(&entry.told, source, age);
        let age = age.as_secs().to_string();
        let said = format!("{}; age={age}", source.as_str());
        let length = entry.body.len().to_string();
        let mut lines: Vec<_> = entry.head.fields.iter().collect();
        lines.push((FIELD.as_bytes(), said.as_bytes()));
        lines.push((b"age", age.as_bytes()));
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
    if let RequestBody::Full(body) = &call.body {
        notes.request_chunk(body);
    }
    let fields = answer.head.fields.with(FIELD, CacheSource::Shared.as_str().as_bytes());
    let head = ResponseHead { fields, reason: answer.head.reason.clone(), ..answer.head };
    notes.shares(&answer.told_by, &head);
    let body = SharedReply::new(follower, notes.clone());
    Reply { head, body: ReplyBody::Shared(Box::new(body)) }
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
