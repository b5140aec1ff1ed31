//! Answers that no upstream gave for this call: what is noted of them.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::{CacheSource, Cached};

use super::Notes;
use crate::head::ResponseHead;

/// What the record of another call told of its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) response_model: Option<Box<str>>,
    pub(crate) finish_reasons: Box<[Box<str>]>,
    pub(crate) provider: Option<Arc<str>>,
    pub(crate) region: Option<Arc<str>>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cost_usd: Option<f64>,
}

impl Notes {
    /// The call gets an answer that was given before. Its tokens are none of this call's.
    pub(crate) fn given_again(&self, told: &Told, source: CacheSource, age: Duration) {
        let Told { input_tokens, output_tokens, cost_usd, .. } = *told;
        self.record(|record| {
            record.cached = Some(Box::new(Cached {
                source: Some(source),
                reason: None,
                age_s: Some(age.as_secs_f64()),
                saved_input_tokens: input_tokens,
                saved_output_tokens: output_tokens,
                saved_cost_usd: cost_usd,
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
