//! Stops calls to an upstream that is unwell, and to one that has had enough for now.
//!
//! The *breaker* opens where an upstream fails, and closes step by step once probes are answered.
//! The *rate gate* closes where the provider said 429, until the time that it named. Both answer at
//! once what they keep out. They are kept for each region and model of an upstream, by all workers
//! together, and judge a call at its first token: a stream may last for minutes.

mod circuit;
mod config;
mod gate;
mod lease;
mod map;
mod metrics;
mod ramp;
mod sync;
mod window;

#[cfg(all(test, feature = "shuttle"))]
mod model;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;

use std::borrow::Cow;
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt::Watch;
use crate::bypass::{Bypass, Bypassed};
use crate::call::{Call, Failure};
use crate::config::{TargetConfig, UpstreamConfig};
use crate::error::{Error, Refusal};
use crate::layer::{Below, Policy};
use crate::stack::LocalFuture;
use crate::upstream::{Spec, Upstream, location};
use crate::verdict::{Health, Verdict};

pub use config::{BreakerConfig, SlowConfig, Steps, WhenAllOpen};

pub(crate) use circuit::{Position, Signal, What};
pub(crate) use lease::Lease;
pub(crate) use map::{Breakers, Key, Refused, Snapshot};

#[cfg(test)]
pub(crate) use circuit::{Stop, Why};

/// Further ahead than any sidecar lives.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// That time and so much more; times come from users and providers, and may be any.
fn later(time: Instant, more: Duration) -> Instant {
    time.checked_add(more.min(FAR)).unwrap_or(time)
}

/// Lets calls through as the breakers of their upstream say; all, where it has none.
#[derive(Clone, Debug)]
pub(crate) struct BreakerLayer {
    guard: Option<Rc<Guard>>,
}

/// The breakers of an upstream, and what is needed to find the right one.
#[derive(Debug)]
struct Guard {
    breakers: Arc<Breakers>,
    /// Of all calls, unless each names its own.
    region: Option<Arc<str>>,
    /// Of all calls, whatever they name.
    asked: Option<String>,
    /// Of calls that name none.
    model: Option<String>,
    is_templated: bool,
    /// Whether rate limits are each caller's own.
    has_accounts: bool,
}

/// The breakers that an upstream is configured to have.
pub(crate) fn of_upstream(
    name: &str,
    config: &UpstreamConfig,
    targets: &[TargetConfig],
    now: Instant,
) -> Option<Arc<Breakers>> {
    let breaker = config.breaker.clone()?;
    let spec = Spec::new(name, config).expect("the configuration was checked");
    let others = targets.iter().filter_map(|target| target.model.as_deref());
    let models: Vec<_> = others.map(Some).chain([config.model.as_deref()]).collect();
    let region = fixed_region(&spec);
    let others = targets.iter().filter_map(|target| target.location.as_ref());
    let locations = config.locations.iter().chain(others).map(|location| Some(location.as_str()));
    let regions: Vec<_> = match spec.is_templated() {
        true => locations.collect(),
        false => vec![region.as_deref()],
    };
    // What a call falls back to must not be shut with what it falls back from.
    let of_region = |region| models.iter().map(move |&model| Key { region, model, account: 0 });
    let known = regions.into_iter().flat_map(of_region);
    Some(Breakers::new(spec.name.clone(), breaker, &known.collect::<Vec<_>>(), now))
}

/// Where all calls of an upstream go, if that is known; each may name its own where it is templated.
fn fixed_region(spec: &Spec) -> Option<Arc<str>> {
    let is_one = spec.addresses() == 1 && !spec.is_templated();
    let of_host = || if is_one { spec.origin(0, None).region } else { None };
    spec.region.clone().or_else(of_host)
}

// === impl BreakerLayer ===

impl BreakerLayer {
    /// `model` is asked there whatever its callers ask for.
    pub(crate) fn new(
        upstream: &Upstream,
        breakers: Option<Arc<Breakers>>,
        model: Option<&str>,
    ) -> Self {
        let spec = &upstream.spec;
        let guard = |breakers| {
            Rc::new(Guard {
                breakers,
                region: fixed_region(spec),
                asked: model.map(str::to_owned),
                model: spec.model.clone(),
                is_templated: spec.is_templated(),
                has_accounts: !upstream.has_credential(),
            })
        };
        Self { guard: breakers.map(guard) }
    }
}

impl<S: Below> Policy<S> for BreakerLayer {
    fn call(&self, below: &mut S, call: Call) -> LocalFuture {
        let Some(guard) = &self.guard else { return below.call(call) };
        let now = Instant::now();
        match guard.admit(&call, now) {
            Ok(lease) => {
                call.notes.watch(lease);
                below.call(call)
            }
            Err(refused) => {
                refused.count();
                let error = error(&refused, guard.breakers.upstream(), now);
                Box::pin(ready(Err(Failure { error, unsent: Some(call) })))
            }
        }
    }

    /// What would have been refused says nothing to the breaker, which would not have seen it.
    fn look_on(&self, below: &mut S, call: Call, bypass: Rc<Bypass>) -> LocalFuture {
        let Some(guard) = &self.guard else { return below.call(call) };
        match guard.admit(&call, Instant::now()) {
            Ok(lease) => call.notes.watch(lease),
            Err(refused) => bypass.would(match refused.stop.what {
                What::Breaker | What::Probing => Bypassed::Breaker,
                What::Gate => Bypassed::RateGate,
            }),
        }
        below.call(call)
    }
}

// === impl Guard ===

impl Guard {
    fn admit(&self, call: &Call, now: Instant) -> Result<Lease, Refused> {
        let location = self.is_templated.then(|| location(call, call.is_grpc()));
        let region = location.as_deref().or(self.region.as_deref());
        let account = if self.has_accounts { self.account(call) } else { 0 };
        call.notes.observer(|observer| {
            let asked = self.asked.as_deref().or(observer.model());
            let model = asked.or(self.model.as_deref());
            self.breakers.admit(&Key { region, model, account }, now)
        })
    }

    /// Whose rate limits a call counts against: the caller's key says so.
    fn account(&self, call: &Call) -> u64 {
        credential(call).map_or(0, |credential| self.breakers.account(&credential))
    }
}

/// The credential that a caller brings, as far as it is the same with each call.
fn credential(call: &Call) -> Option<Cow<'_, [u8]>> {
    let fields = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];
    if let Some(value) = fields.iter().find_map(|name| call.head.fields.get(name)) {
        // A signature is another each time; the id of its key stands before the first slash.
        let is_signature = value.starts_with(b"AWS4-");
        let end = value.iter().position(|byte| is_signature && *byte == b'/');
        return Some(Cow::Borrowed(&value[..end.unwrap_or(value.len())]));
    }
    let mut parameters = call.head.target.query()?.split('&');
    let key = parameters.find_map(|part| part.strip_prefix("key="))?;
    Some(Cow::Borrowed(key.as_bytes()))
}

/// What a caller is told that is kept out.
fn error(refused: &Refused, upstream: &str, now: Instant) -> Error {
    let stop = &refused.stop;
    let of = [("model", refused.model()), ("region", refused.region())];
    let named = of.iter().filter_map(|(what, name)| Some((what, (*name)?)));
    let of: String = named.map(|(what, name)| format!(", {what} `{name}`")).collect();
    let (is, why) = (stop.what.says(), stop.why);
    let refusal = Box::new(Refusal {
        what: format!("of upstream `{upstream}`{of} {is}: {why}"),
        reason: why.word(),
        wait: stop.until.saturating_duration_since(now),
    });
    match stop.what {
        What::Breaker | What::Probing => Error::CircuitOpen(refusal),
        What::Gate => Error::RateGateClosed(refusal),
    }
}

// === impl Lease ===

impl Watch for Lease {
    fn judged(&mut self, verdict: &Verdict, now: Instant) {
        self.judged(signal(verdict), now);
    }

    fn ended(&mut self, broke: bool, now: Instant) {
        match broke {
            true => self.broke(now),
            false => self.ended_well(now),
        }
    }

    fn left(&mut self, now: Instant) {
        self.judged(Signal::Neutral, now);
    }
}

/// A caller's mistake shows that somebody is there, but not that calls are answered.
fn signal(verdict: &Verdict) -> Signal {
    match verdict.health {
        Health::Good if verdict.is_answer => Signal::Good { first_token: verdict.first_token },
        Health::Ill => Signal::Bad,
        Health::Limited => Signal::Limited { wait: verdict.wait },
        Health::Good | Health::Unknown => Signal::Neutral,
    }
}
