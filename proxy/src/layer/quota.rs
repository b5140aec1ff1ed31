//! Lets a call in while there is budget left for it, and charges what it used.
//!
//! Calls are charged, not attempts: whatever is tried below counts once, and what was answered above
//! costs nothing. A call holds what it may be expected to use from the moment that it is let in, so
//! that many at once spend no more than there is; it is charged by its record, whichever way it ends.
//! One that fell back is charged where it ended. Who only looks is not charged: lists of models, polls
//! of jobs.

use std::collections::BTreeSet;
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_wire::{Prices, Record, UsageSource};
use tower::ServiceExt;

use crate::bypass::{Bypass, Bypassed};
use crate::call::{Call, Failure, RequestBody};
use crate::config::Config;
use crate::error::Error;
use crate::exchange::Notes;
use crate::export::metrics::OTHER;
use crate::hold::Keeping;
use crate::layer::{Below, Policy};
use crate::stack::LocalFuture;
use crate::states::States;
use crate::store::Store;
use crate::upstream::Spec;
use crate::whole;

mod amounts;
mod budget;
mod budgets;
mod charge;
mod clock;
mod config;
mod expect;
mod glance;
mod line;
mod metrics;
mod pace;
mod provider;
mod refusal;
mod reserve;
mod rule;
mod sharing;
mod sync;
mod tally;
mod window;

pub(crate) use clock::Clock;
pub use config::{Dollars, Mode, Part, Parts, QuotaConfig, QuotaMatch, Reserve, WindowConfig};
pub(crate) use metrics::QuotaMetrics;
pub(crate) use refusal::Spent;

use amounts::{Amounts, nanodollars};
use budgets::{Admitted, Budgets, Claim, Holding, Refused};
use charge::{Charge, generates};
use expect::{Expectations, Expected};
use provider::Remaining;
use reserve::{Ask, Holds};
use rule::{Rule, Subject};
use sharing::{Share, Sharing};

/// The quotas of one reading of the configuration, and what all readings know of what was used.
#[derive(Debug)]
pub(crate) struct Quotas {
    rules: Vec<Arc<Rule>>,
    kept: Arc<Kept>,
    /// By what others spend some of them too; absent where none is shared.
    sharing: Option<Arc<Sharing>>,
    prices: Arc<Prices>,
    clock: Clock,
    /// The callers that the configuration names.
    callers: BTreeSet<Arc<str>>,
    /// The labels of callers that have no name, and of those that the configuration does not name.
    labels: (Arc<str>, Arc<str>),
}

/// What outlives a reading of the configuration.
#[derive(Debug)]
struct Kept {
    budgets: Budgets,
    expectations: Expectations,
    remaining: Remaining,
    /// The next quota's.
    ids: AtomicU64,
}

/// Charges calls; absent where there is no quota.
#[derive(Clone, Debug)]
pub(crate) struct QuotaLayer(pub(crate) Option<Arc<RouteQuotas>>);

/// The quotas that calls of one route may be charged to.
#[derive(Debug)]
pub(crate) struct RouteQuotas {
    quotas: Arc<Quotas>,
    rules: Vec<Arc<Rule>>,
    /// Whether calls may be charged where they end, though not where they begin.
    charges_elsewhere: bool,
    /// Whether one of all quotas tells models apart.
    asks_for_model: bool,
    upstream: Spec,
    /// The model that is asked there; absent where the caller says.
    asked: Option<Arc<str>>,
    keeping: Arc<Keeping>,
}

/// What is to be settled when a call is over.
#[derive(Debug)]
struct Open {
    quotas: Arc<Quotas>,
    subject: Subject,
    holdings: Vec<Holding>,
    expected: Expected,
}

/// A call that wants to be let in.
struct Asking {
    subject: Subject,
    expected: Expected,
    claims: Vec<Claim>,
    now: clock::Now,
}

/// What a store is asked, as long as somebody waits to hear.
struct Asked<'a> {
    budgets: &'a Budgets,
    shares: Vec<Share>,
}

/// What a call holds until it is let in; dropped before that, it holds nothing any more.
struct Held<'a> {
    quotas: &'a Quotas,
    holdings: Vec<Holding>,
}

impl<S: Below> Policy<S> for QuotaLayer {
    fn call(&self, below: &mut S, mut call: Call) -> LocalFuture {
        let Some(quotas) = self.0.clone().filter(|_| !call.only_looks()) else {
            return below.call(call);
        };
        let is_there = !quotas.asks_for_body(&call) || {
            let has_come = whole::has_come(&call, &quotas.keeping);
            has_come.then(|| look(&call)).is_some()
        };
        if is_there && !quotas.is_shared() {
            return match quotas.admit(&call, None) {
                Ok(()) => below.call(call),
                Err(error) => Box::pin(ready(Err(error.into()))),
            };
        }
        let below = below.clone();
        Box::pin(async move {
            if !is_there && whole::read_ahead(&mut call, &quotas.keeping).await? {
                look(&call);
            }
            match quotas.is_shared() {
                true => quotas.admit_with_others(&call).await,
                false => quotas.admit(&call, None),
            }
            .map_err(Failure::from)?;
            below.oneshot(call).await
        })
    }

    /// It is charged as ever. What it asks for is known as far as its body has come, for that is not
    /// held.
    fn look_on(&self, below: &mut S, call: Call, bypass: Rc<Bypass>) -> LocalFuture {
        if let Some(quotas) = self.0.as_ref().filter(|_| !call.only_looks()) {
            let admitted = quotas.admit(&call, Some(&bypass));
            debug_assert!(admitted.is_ok(), "who looks on refuses nothing");
        }
        below.call(call)
    }
}

/// Has the observer see a body that was read ahead whole, and goes on as it came.
fn look(call: &Call) {
    whole::look(call, |body| call.notes.request_known(body));
}

// === impl Quotas ===

impl Quotas {
    /// Those of a configuration that says so; what was used is taken over from the ones before.
    pub(crate) fn new(
        config: &Config,
        prices: Arc<Prices>,
        clock: Clock,
        store: Option<&Store>,
        before: Option<&Self>,
    ) -> Option<Arc<Self>> {
        let budgets = config.limits.quota_budgets.get() as usize;
        let callers = config.callers.known.keys().map(|name| name.as_str().into()).collect();
        let config = &config.quotas;
        if config.is_empty() {
            return None;
        }
        let known = before.map_or(&[][..], |before| &before.rules);
        let kept =
            before.map_or_else(|| Arc::new(Kept::new(budgets)), |before| before.kept.clone());
        let rule = |(name, config): (&String, &QuotaConfig)| {
            let mut rule = Rule::new(name, config);
            let same = known.iter().find(|known| known.counts_as(&rule)).map(|same| same.id);
            rule.id = same.unwrap_or_else(|| kept.ids.fetch_add(1, Relaxed));
            Arc::new(rule)
        };
        let rules: Vec<_> = config.iter().map(rule).collect();
        kept.budgets.keep(&rules, budgets);
        let labels = ("".into(), OTHER.into());
        let store = store.filter(|_| rules.iter().any(|rule| rule.is_shared));
        let known = before.and_then(|before| before.sharing.as_ref());
        let sharing = store.map(|store| match known.filter(|known| known.is_by(store)) {
            Some(same) => same.clone(),
            None => Sharing::begin(store, &kept, &clock),
        });
        Some(Arc::new(Self { rules, kept, sharing, prices, clock, callers, labels }))
    }

    /// Has the admin address show how they stand.
    pub(crate) fn show(self: &Arc<Self>, states: &mut States) {
        for rule in &self.rules {
            let (quotas, name) = (self.clone(), rule.name.clone());
            states.show("quotas", &rule.name, move || quotas.state(&name));
        }
    }

    /// Whether it must be known which model a call to this upstream is for.
    pub(crate) fn asks_for_model(&self, upstream: &str) -> bool {
        self.rules.iter().any(|rule| rule.is_about(upstream) && rule.asks_for_model())
    }

    /// Those that calls to this upstream, which are asked for this model where one is given, may be
    /// charged to, or calls that end at one of these others;
    /// none where there is none.
    pub(crate) fn of_route<'a>(
        self: &Arc<Self>,
        upstream: &Spec,
        asked: Option<&str>,
        mut others: impl Iterator<Item = &'a str>,
        keeping: &Arc<Keeping>,
    ) -> Option<Arc<RouteQuotas>> {
        let rules = self.rules.iter().filter(|rule| rule.is_about(&upstream.name));
        let rules: Vec<_> = rules.cloned().collect();
        let charges_elsewhere =
            others.any(|other| self.rules.iter().any(|rule| rule.is_about(other)));
        let asks_for_model = self.rules.iter().any(|rule| rule.asks_for_model());
        (!rules.is_empty() || charges_elsewhere).then(|| {
            let (quotas, upstream, keeping) = (self.clone(), upstream.clone(), keeping.clone());
            Arc::new(RouteQuotas {
                quotas,
                rules,
                charges_elsewhere,
                asks_for_model,
                upstream,
                asked: asked.map(Arc::from),
                keeping,
            })
        })
    }

    /// Lets a call in that has room in budgets which others spend too, or says why not.
    async fn admit_by_others(
        &self,
        mut claims: Vec<Claim>,
        now: &clock::Now,
    ) -> Result<Admitted, Box<Refused>> {
        let Some(sharing) = self.sharing.as_ref().filter(|_| !claims.is_empty()) else {
            return self.kept.budgets.admit(claims, true, now);
        };
        let budgets = &self.kept.budgets;
        if claims.iter().any(Claim::can_never_pass) {
            return budgets.admit(claims, true, now);
        }
        let asked = Asked { budgets, shares: budgets.share(&mut claims, now) };
        let answer = sharing.admit(&asked.shares).await;
        budgets.judge(claims, &asked.shares, answer.as_ref(), now)
    }

    /// The caller, as metrics name it.
    fn label(&self, caller: Option<&Arc<str>>) -> &Arc<str> {
        let (nobody, other) = &self.labels;
        caller.map_or(nobody, |caller| self.callers.get(caller).unwrap_or(other))
    }
}

impl Kept {
    fn new(budgets: usize) -> Self {
        let budgets = Budgets::new(budgets);
        let (expectations, remaining) = (Expectations::default(), Remaining::default());
        Self { budgets, expectations, remaining, ids: AtomicU64::default() }
    }
}

// === impl RouteQuotas ===

impl RouteQuotas {
    /// Whether the body must be read before the call goes on, for it may say how much it wants.
    fn asks_for_body(&self, call: &Call) -> bool {
        let is_streamed = matches!(*call.body, RequestBody::Http1(_) | RequestBody::Http2(_));
        let says_more = || {
            call.notes.observer(|observer| {
                let shape = observer.shape();
                let generates = shape.operation.as_deref().is_some_and(generates);
                // A body of gRPC may go on for as long as its answer.
                generates && !shape.is_grpc() && observer.reads_request()
            })
        };
        is_streamed && self.rules.iter().any(|rule| rule.asks_for_body()) && says_more()
    }

    /// Whether others spend what these calls are charged to.
    fn is_shared(&self) -> bool {
        self.quotas.sharing.is_some() && self.rules.iter().any(|rule| rule.is_shared)
    }

    /// Lets a call in, or says why not; where policies are bypassed it is always let in.
    fn admit(&self, call: &Call, bypass: Option<&Bypass>) -> Result<(), Error> {
        let Some(asking) = self.asking(call) else { return Ok(()) };
        let Asking { claims, now, .. } = asking;
        let budgets = &self.quotas.kept.budgets;
        let admitted = budgets.admit(claims, bypass.is_none(), &now);
        let admitted = admitted.map_err(|refused| refuse(call, &refused, &now))?;
        if let Some(bypass) = bypass.filter(|_| admitted.is_bypassed) {
            bypass.would(Bypassed::Quota);
        }
        self.is_admitted(call, asking.subject, asking.expected, admitted);
        Ok(())
    }

    /// The same where others decide too: what is not shared is decided first.
    async fn admit_with_others(&self, call: &Call) -> Result<(), Error> {
        let Some(asking) = self.asking(call) else { return Ok(()) };
        let Asking { subject, expected, claims, now } = asking;
        let (shared, own): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| claim.rule.is_shared);
        let budgets = &self.quotas.kept.budgets;
        let admitted = budgets.admit(own, true, &now);
        let admitted = admitted.map_err(|refused| refuse(call, &refused, &now))?;
        let mut held = Held { quotas: &self.quotas, holdings: admitted.holdings };
        let others = call.or_left(self.quotas.admit_by_others(shared, &now)).await?;
        let others = others.map_err(|refused| refuse(call, &refused, &now))?;
        let mut holdings = std::mem::take(&mut held.holdings);
        holdings.extend(others.holdings);
        let would_refuse = admitted.would_refuse.or(others.would_refuse);
        let admitted = Admitted { holdings, would_refuse, is_bypassed: false };
        self.is_admitted(call, subject, expected, admitted);
        Ok(())
    }

    /// A call is charged when it is over.
    fn is_admitted(&self, call: &Call, subject: Subject, expected: Expected, admitted: Admitted) {
        let Admitted { holdings, would_refuse, .. } = admitted;
        if would_refuse.is_some() {
            call.notes.record(|record| record.quota.get_or_insert_default().spent = would_refuse);
        }
        let open = Open { quotas: self.quotas.clone(), subject, holdings, expected };
        call.notes.when_closed(Box::new(move |record| open.settle(record)));
    }

    /// What a call wants of which budgets; nothing where no quota is about it.
    fn asking(&self, call: &Call) -> Option<Asking> {
        let notes = &call.notes;
        let subject = Subject {
            caller: notes.record(|record| record.caller.clone()),
            model: self.asks_for_model.then(|| notes.model(|model| model.map(Arc::from))).flatten(),
            upstream: self.upstream.name.clone(),
        };
        let (holds, expected) = self.holds(call);
        let label = self.quotas.label(subject.caller.as_ref());
        let claim = |rule: &Arc<Rule>| {
            Some(Claim {
                rule: rule.clone(),
                key: rule.key(&subject)?,
                label: label.clone(),
                holds: holds.by(rule.reserve),
                most: holds.stated,
            })
        };
        let claims: Vec<_> = self.rules.iter().filter_map(claim).collect();
        let is_about_it = !claims.is_empty() || self.charges_elsewhere;
        let now = self.quotas.clock.now();
        is_about_it.then_some(Asking { subject, expected, claims, now })
    }

    /// What a call may be expected to use, and holds of the budgets.
    fn holds(&self, call: &Call) -> (Holds, Expected) {
        let notes = &call.notes;
        let (operation, most) = notes.observer(|observer| {
            (observer.shape().operation.clone(), observer.max_output_tokens())
        });
        let ask = Ask { operation: operation.as_deref(), bytes: length(call), most };
        let usual = notes.model(|model| self.quotas.kept.expectations.of(model));
        let matters = self.rules.iter().any(|rule| rule.limits.has_cost());
        let call = matters.then(|| self.priced(notes));
        Holds::of(&ask, &usual, |input, output| {
            call.as_ref().map_or(0, |call| self.cost(call, input, output))
        })
    }

    /// What decides the price of a call, as far as it is known before it goes on.
    fn priced(&self, notes: &Notes) -> Record {
        let model = notes.model(|model| model.map(str::to_owned));
        notes.observer(|observer| {
            let (shape, location) = (observer.shape(), observer.location());
            let origin = self.upstream.origin(0, location);
            Record {
                time: self.quotas.clock.now().wall,
                operation: shape.operation.clone(),
                is_provider_assumed: origin.provider.is_none() && shape.is_provider_assumed,
                provider: origin.provider.or_else(|| shape.provider.clone()),
                region: origin.region.or_else(|| location.map(Into::into)),
                called_model: self.called(model.as_deref()),
                request_model: model,
                usage_source: Some(UsageSource::Reported),
                ..Record::default()
            }
        })
    }

    /// What the upstream calls the model, where that is not what the caller asks for.
    fn called(&self, model: Option<&str>) -> Option<Arc<str>> {
        let model = self.asked.as_deref().or(model)?;
        self.upstream.aliases.get(model).or(self.asked.as_ref()).cloned()
    }

    /// What so many tokens would cost, in nanodollars; nothing where there is no price.
    fn cost(&self, call: &Record, input: u64, output: u64) -> u64 {
        let (input_tokens, output_tokens) = (Some(input), Some(output));
        let call = Record { input_tokens, output_tokens, ..call.clone() };
        self.quotas.prices.cost(&call).usd.map_or(0, nanodollars)
    }
}

fn refuse(call: &Call, refused: &Refused, now: &clock::Now) -> Error {
    call.notes.record(|record| {
        record.quota.get_or_insert_default().spent = Some(refused.rule.name.clone());
    });
    Error::QuotaSpent(Box::new(Spent::new(refused, now)))
}

/// Bytes of a request, where its head says so or it is at hand.
fn length(call: &Call) -> Option<u64> {
    match &*call.body {
        RequestBody::Empty => Some(0),
        RequestBody::Full(bytes) => Some(bytes.len() as u64),
        RequestBody::Http1(_) | RequestBody::Http2(_) => {
            let length = call.head.fields.get("content-length")?;
            std::str::from_utf8(length).ok()?.trim().parse().ok()
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.budgets.is_answered(&self.shares);
    }
}

// === impl Held ===

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Quotas { kept, clock, .. } = self.quotas;
        let (nothing, now) = (Amounts::default(), clock.now());
        self.holdings.iter().for_each(|holding| kept.budgets.settle(holding, &nothing, &now));
    }
}

// === impl Open ===

impl Open {
    /// Charges what the call came to, and writes down what of it was estimated.
    fn settle(self, record: &mut Record) {
        let Quotas { kept, prices, clock, .. } = &*self.quotas;
        let usual = kept.expectations.of(record.request_model.as_deref());
        // To tell what an estimate costs takes a copy of the record.
        let is_about_money = self.quotas.rules.iter().any(|rule| rule.limits.has_cost());
        let prices = is_about_money.then_some(&**prices);
        let charge = Charge::of(record, self.expected, &usual, prices);
        let now = clock.now();
        let ended = Subject {
            upstream: record.upstream.clone().unwrap_or_else(|| self.subject.upstream.clone()),
            ..self.subject.clone()
        };
        match ended == self.subject {
            true => self.holdings.iter().for_each(|holding| {
                kept.budgets.settle(holding, &charge.amounts, &now);
            }),
            false => self.move_to(&ended, &charge, &now),
        }
        let (input, output) = charge.estimated;
        if charge.estimated != (None, None) {
            let quota = record.quota.get_or_insert_default();
            (quota.estimated_input_tokens, quota.estimated_output_tokens) = (input, output);
        }
        for holding in &self.holdings {
            let basis = charge.basis(holding.rule.limits.has_cost());
            kept.budgets.count(&holding.rule, |tally| tally.charged[basis as usize] += 1);
        }
        kept.expectations.see(record);
        kept.remaining.see(record);
    }

    /// The call ended elsewhere than it began: it is charged there alone.
    fn move_to(&self, ended: &Subject, charge: &Charge, now: &clock::Now) {
        let Quotas { kept, rules, .. } = &*self.quotas;
        let nothing = Amounts::default();
        for rule in rules {
            let began = self.holdings.iter().find(|holding| holding.rule.id == rule.id);
            let key = rule.key(ended);
            match (began, key) {
                (Some(held), Some(key)) if rule.key(&self.subject).as_ref() == Some(&key) => {
                    kept.budgets.settle(held, &charge.amounts, now);
                }
                (held, key) => {
                    held.into_iter().for_each(|held| kept.budgets.settle(held, &nothing, now));
                    key.iter().for_each(|key| kept.budgets.charge(rule, key, &charge.amounts, now));
                }
            }
        }
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
