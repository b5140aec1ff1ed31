//! Answers that no upstream gave for this call: what is noted of them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_wire::{CacheSource, Cached, Record};

use super::Notes;
use crate::head::ResponseHead;

/// What the record of another call told of its answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) response_model: Option<Box<str>>,
    pub(crate) finish_reasons: Box<[Box<str>]>,
    pub(crate) provider: Option<Arc<str>>,
    pub(crate) region: Option<Arc<str>>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cost_usd: Option<f64>,
}

/// Who gives the answer to a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToldBy {
    upstream: Option<Arc<str>>,
    provider: Option<Arc<str>>,
    region: Option<Arc<str>>,
    fallback: Option<u64>,
    called_model: Option<Arc<str>>,
}

impl Notes {
    /// Who gives the answer to this call.
    pub(crate) fn told_by(&self) -> ToldBy {
        self.record(|record| ToldBy {
            upstream: record.upstream.clone(),
            provider: record.provider.clone(),
            region: record.region.clone(),
            fallback: record.fallback,
            called_model: record.called_model.clone(),
        })
    }

    /// The call gets the answer to another one that is on its way. Its tokens are none of this call's.
    pub(crate) fn shares(&self, told_by: &ToldBy, head: &ResponseHead) {
        let ToldBy { upstream, provider, region, fallback, called_model } = told_by.clone();
        self.record(|record| {
            record.cached = Some(Box::new(Cached::of(CacheSource::Shared)));
            (record.upstream, record.provider, record.region) = (upstream, provider, region);
            (record.fallback, record.called_model) = (fallback, called_model);
        });
        self.answered(head);
        self.when_closed(Box::new(is_saved));
    }

    /// The call gets an answer that was given before. Its tokens are none of this call's.
    pub(crate) fn given_again(&self, told: &Told, cached: Cached, age: Duration) {
        let Told { input_tokens, output_tokens, cost_usd, .. } = *told;
        self.record(|record| {
            record.cached = Some(Box::new(Cached {
                age_s: Some(age.as_secs_f64()),
                saved_input_tokens: input_tokens,
                saved_output_tokens: output_tokens,
                saved_cost_usd: cost_usd,
                ..cached
            }));
            record.response_model = told.response_model.as_deref().map(str::to_owned);
            record.finish_reasons =
                told.finish_reasons.iter().map(|text| (**text).into()).collect();
            record.provider = told.provider.clone();
            record.region = told.region.clone();
        });
    }

    /// The head of such an answer.
    pub(crate) fn replays(&self, head: &ResponseHead) {
        if let Some(content) = &mut self.state.borrow_mut().content {
            content.head(&head.fields);
        }
    }

    /// Its payload, on its way to the caller. When tokens came says nothing of a model.
    pub(crate) fn replayed(&self, payload: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.response_bytes += payload.len() as u64;
        if let Some(content) = &mut state.content {
            content.response(payload);
        }
    }
}

/// What the answer says of usage was another call's: it is what this one has saved. When its tokens
/// came says nothing of a model.
fn is_saved(record: &mut Record) {
    if let Some(cached) = record.cached.as_deref_mut() {
        cached.saved_input_tokens = record.input_tokens.take();
        cached.saved_output_tokens = record.output_tokens.take();
        cached.saved_cost_usd = record.cost_usd.take();
    }
    let own = std::mem::take(record);
    *record = Record {
        response_id: None,
        cache_read_tokens: None,
        cache_creation_tokens: None,
        reasoning_tokens: None,
        usage_source: None,
        size_class: None,
        price_version: None,
        unpriced: None,
        time_to_first_byte_s: None,
        time_to_first_body_byte_s: None,
        time_to_first_event_s: None,
        time_to_first_token_s: None,
        time_to_first_visible_token_s: None,
        time_to_last_token_s: None,
        time_per_output_token_s: None,
        token_chunks: None,
        gap_p50_s: None,
        gap_p99_s: None,
        gap_max_s: None,
        stalls: None,
        ..own
    };
}
