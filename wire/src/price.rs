//! What a call costs, by a table of prices.
//!
//! A cost is whole or absent: where a call used anything that the table has no price for, the call
//! is unpriced, and never counts as free. Sums are of whole picodollars, so they are exact.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::{Media, Record, UsageSource, glob};

/// The table that ships with Tidegate, as YAML.
pub const DEFAULT_PRICES: &str = include_str!("../../config/prices.yaml");

/// Picodollars in a dollar.
const DOLLAR: f64 = 1e12;
/// No million tokens, image or second costs more; who writes more has mistaken the unit.
const MOST_DOLLARS: f64 = 1e6;
/// What providers call the service that costs what the list says.
const STANDARD: [&str; 4] = ["default", "standard", "auto", "on_demand"];

/// A table of prices. The first entry that fits a call holds for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Table")]
pub struct Prices {
    version: Arc<str>,
    prices: Vec<Price>,
    /// By the first byte of a model: the patterns that may fit it, in the order of the table.
    patterns: Vec<Vec<Pattern>>,
}

/// What a call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// In US dollars; absent where nothing was used, or not all of it has a price.
    pub usd: Option<f64>,
    /// Whether it used something that has no price.
    pub unpriced: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    model: Form,
    /// The first eight bytes of its front, and which bits of them there are.
    start: (u64, u64),
    /// Its place in the table.
    price: usize,
}

/// A pattern, cut at its first star: most texts are told by the front alone.
#[derive(Clone, Debug)]
struct Form {
    front: Box<str>,
    /// The star and what follows.
    rest: Option<Box<str>>,
}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    version: String,
    prices: Vec<Price>,
}

/// One entry: which calls it is for, and what they are charged.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    /// The `gen_ai.provider.name`; any where absent.
    provider: Option<Form>,
    #[serde(deserialize_with = "at_least_one")]
    models: Vec<String>,
    /// Any where absent.
    regions: Option<Vec<Form>>,
    /// A service that is charged otherwise, such as `flex`.
    service_tier: Option<String>,
    /// The first day on which it holds, in UTC.
    #[serde(default, deserialize_with = "day")]
    from: Option<Timestamp>,
    input: Option<PerMillion>,
    output: Option<PerMillion>,
    cached: Option<PerMillion>,
    cache_write: Option<PerMillion>,
    /// What holds for the whole of a call whose input is longer.
    above: Option<Above>,
    /// Whether audio, that of videos too, is charged as text is. Where it is not, nobody can tell
    /// which of the tokens were whose.
    #[serde(default)]
    audio_as_input: bool,
    /// For each image made.
    image: Option<Each>,
    /// For each second of video made.
    video_second: Option<Each>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Above {
    input_tokens: u64,
    input: Option<PerMillion>,
    output: Option<PerMillion>,
    cached: Option<PerMillion>,
    cache_write: Option<PerMillion>,
}

/// Picodollars for one token, written as dollars for a million.
#[derive(Clone, Copy, Debug)]
struct PerMillion(u64);

/// Picodollars for one, written as dollars.
#[derive(Clone, Copy, Debug)]
struct Each(u64);

/// Adds up what a call used: nothing so far, or a sum, or something that has no price.
#[derive(Clone, Copy)]
enum Sum {
    Nothing,
    Priced(u128),
    Unpriced,
}

// === impl Prices ===

impl Prices {
    /// The name of this state of the table.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.prices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prices.is_empty()
    }

    /// Writes into a record that is otherwise complete what its call costs.
    pub fn apply(&self, record: &mut Record) {
        let cost = self.cost(record);
        record.cost_usd = cost.usd;
        record.price_version = cost.usd.map(|_| self.version.clone());
        record.unpriced = cost.unpriced.then_some(true);
    }

    /// What the call of this record costs.
    pub fn cost(&self, record: &Record) -> Cost {
        let used = Used::of(record);
        // Who counts tokens uses none.
        if record.operation.is_none() || record.counted_tokens.is_some() || used.is_nothing() {
            return Cost::default();
        }
        let sum = match self.price(record) {
            Some(price) => price.charge(&used),
            None => Sum::Unpriced,
        };
        match sum {
            Sum::Nothing => Cost::default(),
            Sum::Priced(picodollars) => {
                Cost { usd: Some(picodollars as f64 / DOLLAR), unpriced: false }
            }
            Sum::Unpriced => Cost { usd: None, unpriced: true },
        }
    }

    /// The entry for the model that answered, else for the one that was asked: an alias is charged
    /// as what it stands for, the provider's as well as ours.
    fn price(&self, record: &Record) -> Option<&Price> {
        let asked = [record.called_model.as_deref(), record.request_model.as_deref()];
        let models = std::iter::once(record.response_model.as_deref()).chain(asked);
        models.flatten().find_map(|model| {
            let named = self.named(model, record);
            named.or_else(|| self.named(without_path(model)?, record))
        })
    }

    fn named(&self, model: &str, record: &Record) -> Option<&Price> {
        let patterns = &self.patterns[usize::from(*model.as_bytes().first()?)];
        let start = start(model).0;
        // The cheapest question first; the rest of a pattern costs most.
        let fits = |pattern: &&Pattern| {
            (start ^ pattern.start.0) & pattern.start.1 == 0
                && pattern.model.begins(model)
                && self.prices[pattern.price].is_for(record)
                && pattern.model.fits(model)
        };
        patterns.iter().find(fits).map(|pattern| &self.prices[pattern.price])
    }
}

impl Default for Prices {
    /// A table without any price.
    fn default() -> Self {
        Table { version: "none".into(), prices: Vec::new() }.into()
    }
}

/// The first eight bytes of a text, and which bits of them there are.
fn start(text: &str) -> (u64, u64) {
    let (mut bytes, mut mask) = ([0; 8], [0; 8]);
    for ((to, there), byte) in bytes.iter_mut().zip(&mut mask).zip(text.bytes()) {
        (*to, *there) = (byte, 0xff);
    }
    (u64::from_ne_bytes(bytes), u64::from_ne_bytes(mask))
}

/// The model within a longer name: the end of an ARN, or what stands behind `models/`.
fn without_path(model: &str) -> Option<&str> {
    let (front, model) = model.rsplit_once('/')?;
    (front.starts_with("arn:") || front.ends_with("models")).then_some(model)
}

impl From<Table> for Prices {
    fn from(Table { version, prices }: Table) -> Self {
        let mut patterns = vec![Vec::new(); 256];
        for (price, entry) in prices.iter().enumerate() {
            for model in &entry.models {
                let model_form = Form::new(model);
                let start = start(&model_form.front);
                let pattern = Pattern { model: model_form, start, price };
                match model.bytes().next() {
                    Some(b'*') => patterns.iter_mut().for_each(|list| list.push(pattern.clone())),
                    Some(byte) => patterns[usize::from(byte)].push(pattern),
                    None => {}
                }
            }
        }
        Self { version: version.into(), prices, patterns }
    }
}

/// What a call used, so far as anything is charged for it.
struct Used {
    input_tokens: u64,
    /// Parts of the input.
    uncached: u64,
    cached: u64,
    cache_write: u64,
    output: u64,
    images: u64,
    video_seconds: f64,
    has_audio: bool,
    states_tokens: bool,
    /// More may have been used than was stated, or at a price that the table does not have.
    is_unclear: bool,
}

impl Used {
    fn of(record: &Record) -> Self {
        let cached = record.cache_read_tokens.unwrap_or(0);
        let cache_write = record.cache_creation_tokens.unwrap_or(0);
        let input_tokens = record.input_tokens.unwrap_or(0);
        let media = record.media.as_deref();
        let made = |count: fn(&Media) -> Option<u64>| media.and_then(count).unwrap_or(0);
        Self {
            input_tokens,
            uncached: input_tokens.saturating_sub(cached).saturating_sub(cache_write),
            cached,
            cache_write,
            output: record.output_tokens.unwrap_or(0),
            images: made(|media| media.images_made),
            video_seconds: media.and_then(|media| media.video_seconds).unwrap_or(0.0),
            has_audio: made(|media| media.audios.max(media.videos)) > 0,
            states_tokens: record.usage_source.is_some(),
            is_unclear: record.usage_source == Some(UsageSource::Partial)
                || record.has_long_cache_write,
        }
    }

    fn is_nothing(&self) -> bool {
        !self.states_tokens && self.images == 0 && self.video_seconds <= 0.0
    }
}

// === impl Form ===

impl Form {
    fn new(pattern: &str) -> Self {
        let (front, rest) = pattern.split_at(pattern.find('*').unwrap_or(pattern.len()));
        Self { front: front.into(), rest: (!rest.is_empty()).then(|| rest.into()) }
    }

    /// An empty front is asked for first: to compare no bytes at no address takes some processors
    /// fifty nanoseconds.
    fn begins(&self, text: &str) -> bool {
        self.front.is_empty() || text.starts_with(&*self.front)
    }

    fn fits(&self, text: &str) -> bool {
        if !self.begins(text) {
            return false;
        }
        let behind = &text[self.front.len()..];
        match self.rest.as_deref() {
            None => behind.is_empty(),
            Some("*") => true,
            Some(rest) => glob(rest, behind),
        }
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

// === impl Price ===

impl Price {
    /// Whether it holds for this call, whose model it fits. Who only speaks like a provider does not
    /// charge what that does: a server of one's own may give its model any name.
    fn is_for(&self, record: &Record) -> bool {
        let stated = record.provider.as_deref().filter(|_| !record.is_provider_assumed);
        let provider = stated.unwrap_or_default();
        let region = record.region.as_deref().unwrap_or_default();
        let is_in = |regions: &Vec<Form>| regions.iter().any(|form| form.fits(region));
        self.provider.as_ref().is_none_or(|form| form.fits(provider))
            && self.regions.as_ref().is_none_or(is_in)
            && self.from.is_none_or(|from| record.time >= from)
            && self.is_for_tier(record.service_tier.as_deref())
    }

    fn is_for_tier(&self, tier: Option<&str>) -> bool {
        match (&self.service_tier, tier) {
            (Some(own), Some(tier)) => own.eq_ignore_ascii_case(tier),
            (Some(_), None) => false,
            (None, None) => true,
            (None, Some(tier)) => STANDARD.iter().any(|word| word.eq_ignore_ascii_case(tier)),
        }
    }

    fn charge(&self, used: &Used) -> Sum {
        let Self { input, output, cached, cache_write, .. } = self;
        let rates = match &self.above {
            Some(above) if used.input_tokens > above.input_tokens => {
                [above.input, above.cached, above.cache_write, above.output]
            }
            _ => [*input, *cached, *cache_write, *output],
        };
        let tokens = [used.uncached, used.cached, used.cache_write, used.output];
        let mut sum = match used.states_tokens {
            true if used.is_unclear || used.has_audio && !self.audio_as_input => Sum::Unpriced,
            true => Sum::Priced(0),
            false => Sum::Nothing,
        };
        for (rate, tokens) in rates.into_iter().zip(tokens) {
            sum.add(tokens, rate.map(|rate| rate.0));
        }
        sum.add(used.images, self.image.map(|each| each.0));
        // Seconds have fractions, of which a thousandth is the smallest.
        let milliseconds = (used.video_seconds.max(0.0) * 1000.0).round() as u64;
        sum.add(milliseconds, self.video_second.map(|each| each.0 / 1000));
        sum
    }
}

impl Sum {
    fn add(&mut self, count: u64, price: Option<u64>) {
        if count == 0 {
            return;
        }
        *self = match (*self, price) {
            (Self::Unpriced, _) | (_, None) => Self::Unpriced,
            (Self::Nothing, Some(price)) => Self::Priced(u128::from(count) * u128::from(price)),
            (Self::Priced(sum), Some(price)) => {
                Self::Priced(sum + u128::from(count) * u128::from(price))
            }
        };
    }
}

// === how the file reads ===

impl<'de> Deserialize<'de> for PerMillion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self((dollars(deserializer)? * (DOLLAR / 1e6)).round() as u64))
    }
}

impl<'de> Deserialize<'de> for Each {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self((dollars(deserializer)? * DOLLAR).round() as u64))
    }
}

fn dollars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let dollars = f64::deserialize(deserializer)?;
    if (0.0..=MOST_DOLLARS).contains(&dollars) {
        return Ok(dollars);
    }
    Err(D::Error::custom(format!("`{dollars}` is no price; write US dollars, 0 or more")))
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let day = text.parse::<Date>().ok().and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    let wrong = || D::Error::custom(format!("`{text}` is no day; write it such as 2026-11-01"));
    Ok(Some(day.ok_or_else(wrong)?.timestamp()))
}

fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let models = Vec::<String>::deserialize(deserializer)?;
    if models.is_empty() || models.iter().any(String::is_empty) {
        return Err(D::Error::custom("an entry needs the name of at least one model"));
    }
    Ok(models)
}

#[cfg(test)]
mod tests;
